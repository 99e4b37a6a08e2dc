"""A password of the address never leaves in text: not from a command, nor from what an object says of itself."""

import os
import subprocess
from pathlib import Path

import pytest
import redis

from producer import AsyncProducer, Producer, SubmitFailed
from tests.running import FLEET
from tests.waiting import free_port

MARKER = "sesame-5f1d"
COMMANDS = [
    ("submit", "--model", "m", "--prompt", "p"),
    ("result", "j"),
    ("cancel", "j"),
    ("queues",),
    ("workers",),
    ("dead", "list"),
    ("conversation", "show", "c"),
    ("doctor",),
]
SERVERS = [
    ("worker", "--model", "m", "--set", "engine.kind=simulated", "--set", "worker.gpus=none", "--set", "redis.nope=1"),
    ("config", "show"),
    ("config", "show", "--set", "redis.nope=1"),
    ("gateway", "--port", "none"),
]


@pytest.fixture(params=["a wrong password", "nobody there", "no address", "an option that is none"])
def url(request: pytest.FixtureRequest, redis_url: str) -> str:
    """Each of them has the marker for a password."""
    place = redis_url.removeprefix("redis://")
    return {
        "a wrong password": f"redis://somebody:{MARKER}@{place}",
        "nobody there": f"redis://somebody:{MARKER}@127.0.0.1:{free_port()}/0",
        "no address": f"redis://somebody:{MARKER}@127.0.0.1:port/0",
        "an option that is none": f"rediss://somebody:{MARKER}@{place}?ssl_ca_cert=x",
    }[request.param]


@pytest.mark.parametrize("command", [*COMMANDS, *SERVERS], ids=" ".join)
def test_no_command_prints_it(url: str, command: tuple[str, ...], tmp_path: Path) -> None:
    """Whatever is wrong; and what is said is a sentence, not a traceback."""
    environ = os.environ | {"FLEET_REDIS_URL": url, "NO_COLOR": "1"}
    done = subprocess.run(
        [*FLEET, *command], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    said = done.stdout + done.stderr
    assert MARKER not in said
    assert "Traceback" not in said
    assert done.returncode != 0 or command == ("config", "show")


async def test_no_object_says_it(redis_url: str) -> None:
    """Neither producers nor what they raise."""
    url = redis_url.replace("redis://", f"redis://somebody:{MARKER}@")
    async with AsyncProducer(url) as async_producer:
        with Producer(url) as producer, pytest.raises(SubmitFailed) as failed:
            producer.submit(model="m", prompt="p")
        texts = [repr(producer), str(producer), repr(async_producer), repr(failed.value), str(failed.value)]
        texts += [str(failed.value.__cause__), repr(failed.value.__cause__)]
    assert not any(MARKER in text for text in texts)
    assert isinstance(failed.value.__cause__, redis.exceptions.RedisError)
