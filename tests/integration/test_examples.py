"""The web apps of examples/ behind their real servers, in front of a real fleet with the simulated engine."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.example_sites import NAMES, ROOT, Event, Example, Site, readme_commands, served, text_of
from tests.gateways import running_gateway
from tests.running import RunningFleet, simulated
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer

SHORT = "Tell me story 969"
"""The simulated engine's answer has 30 words."""
MIDDLE = "Tell me story 521"
"""The simulated engine's answer has 125 words."""
LONG = "Tell me story 1778"
"""The simulated engine's answer has 489 words."""
STREAMS = 30
"""No more than one of gunicorn's workers has threads: both might come to the same."""
FEW_CONNECTIONS = 10
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """Answers at 50 tokens a second."""
    folder = tmp_path_factory.mktemp("fleet")
    with (
        EmbeddedServer(folder / "valkey", free_port()) as server,
        simulated(server.url, folder, seconds_per_token=0.02) as fleet,
    ):
        yield fleet


@pytest.fixture(scope="module", params=NAMES)
def site(
    request: pytest.FixtureRequest, fleet: RunningFleet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Each example, served for all tests of it."""
    with served(Example(request.param, tmp_path_factory.mktemp(request.param), fleet.redis_url)) as site:
        yield site


@pytest.fixture
def key() -> str:
    """What a form, or a client, thinks of for one question."""
    return str(uuid.uuid4())


def test_a_question_is_answered_at_once_and_followed_later(site: Site, key: str) -> None:
    """The page is there while the answer is generated; what was streamed is what it shows in the end."""
    path = site.asked(SHORT, key)
    with site.following(path) as told:
        first = next(told)
        state, text = site.look(path)
        rest = list(told)
    assert first.name == "delta"
    assert (state, text) in {("queued", ""), ("running", "")}
    assert [event.name for event in rest] == ["delta"] * (len(rest) - 1) + ["ended"]
    state, text = site.look(path)
    assert state == "succeeded"
    assert text == text_of([first, *rest])
    assert len(text.split()) == 30


def test_a_form_that_is_sent_twice_makes_one_job(site: Site, key: str) -> None:
    """At the same moment, or much later; another key is another job."""
    with ThreadPoolExecutor(4) as clicks:
        paths = set(clicks.map(lambda _: site.asked(SHORT, key), range(4)))
    assert len(paths) == 1
    [path] = paths
    eventually(lambda: site.look(path)[0] == "succeeded", what="an answer")
    assert site.asked(SHORT, key) == path
    assert site.asked(SHORT, str(uuid.uuid4())) != path


def test_a_job_is_cancelled(site: Site, key: str) -> None:
    """Whoever follows it is told, and its page says so."""
    path = site.asked(LONG, key)
    with site.following(path) as told:
        next(told)
        site.cancel(path)
        *_, last = told
    assert last == Event("failed", "", {"message": "There is no answer: cancelled."})
    assert site.look(path)[0] == "cancelled"


def test_what_is_wrong_with_a_request_is_said(site: Site, key: str) -> None:
    """An empty question, and a key that names another one."""
    site.asked(SHORT, key)
    other = site.ask("Something else", key)
    assert other.status_code == 400
    assert "which asked something else" in other.text
    assert site.ask("", str(uuid.uuid4())).status_code == (422 if site.name == "fastapi" else 400)


def test_an_answer_that_nobody_knows_is_not_found(site: Site) -> None:
    """Neither its page nor its events."""
    assert site.client.get(f"/answers/{NOBODY}").status_code == 404
    assert site.client.get(f"/answers/{NOBODY}/events").status_code == 404


def test_a_position_that_is_none_ends_the_stream(site: Site, key: str) -> None:
    """With a sentence."""
    with site.following(site.asked(SHORT, key), after="7") as told:
        [only] = told
    assert only.name == "failed"
    assert "no position" in only.data["message"]


def test_a_full_queue_is_a_pause_for_the_visitor(site: Site, fleet: RunningFleet, key: str) -> None:
    """Who is told when to come back, and nothing of how to run a fleet."""
    with fleet.producer() as producer:
        producer.set_queue_limit("sim", 0)
        full = site.ask(SHORT, key)
        producer.set_queue_limit("sim", None)
    assert full.status_code == 503
    assert full.headers["retry-after"] == "30"
    assert "Too many questions are waiting" in full.text
    assert "fleet queues" not in full.text
    site.asked(SHORT, key)


def test_open_streams_share_connections_to_redis(site: Site, fleet: RunningFleet) -> None:
    """In an event loop all of them together need a few; of threads each has its own."""
    port = urlsplit(fleet.redis_url).port
    assert port
    with ExitStack() as stack:
        paths = [site.asked(LONG, str(uuid.uuid4())) for _ in range(STREAMS)]
        for path in paths:
            next(stack.enter_context(site.following(path)))
        connections = site.connections(port)
        assert 0 < connections <= (STREAMS if site.name == "flask" else FEW_CONNECTIONS)
        for path in paths:
            site.cancel(path)


@pytest.mark.parametrize("name", NAMES)
def test_without_redis_the_server_is_up_and_says_so(name: str, tmp_path: Path, key: str) -> None:
    """It starts, and answers 503 without an address in it."""
    port = free_port()
    with served(Example(name, tmp_path, f"redis://127.0.0.1:{port}/0")) as site:
        away = site.ask(SHORT, key)
    assert away.status_code == 503
    assert away.headers["retry-after"] == "30"
    assert "at the moment" in away.text
    assert str(port) not in away.text
    assert str(port) in site.log.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_nobody_serves_is_the_operators_to_know(
    name: str, fleet: RunningFleet, tmp_path: Path, key: str
) -> None:
    """The visitor is told that it does not work now, the log which model is missing."""
    with served(Example(name, tmp_path, fleet.redis_url, model="missing")) as site:
        refused = site.ask(SHORT, key)
    assert refused.status_code == 503
    assert "missing" not in refused.text
    assert "model 'missing' is not known" in site.log.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_goes_on_after_a_deploy(name: str, fleet: RunningFleet, tmp_path: Path, key: str) -> None:
    """The server stops while a stream is open; the next one goes on after the last event that the visitor has."""
    example = Example(name, tmp_path, fleet.redis_url)
    with served(example) as site:
        path = site.asked(LONG, key)
        with site.following(path) as told:
            first = [next(told) for _ in range(3)]
            site.process.terminate()
            with suppress(httpx.RemoteProtocolError):  # cut off, as a browser would be
                first += told
    assert first[-1].name == "delta"
    with served(example) as site, site.following(path, first[-1].event_id) as told:
        rest = list(told)
        assert rest[-1].name == "ended"
        assert site.look(path) == ("succeeded", text_of(first + rest))
    assert len(text_of(first + rest).split()) == 489


@pytest.fixture(scope="module")
def light_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment that has what the READMEs install, and nothing else."""
    folder = tmp_path_factory.mktemp("light")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = str(folder / "bin" / "python")
    for name in NAMES:
        [install] = (command for command in readme_commands(name) if command[:2] == ["pip", "install"])
        subprocess.run([python, "-m", *install, "--quiet"], cwd=ROOT, check=True)
    return python


@pytest.mark.parametrize("name", NAMES)
def test_what_the_readme_installs_is_enough_and_light(
    name: str, fleet: RunningFleet, tmp_path: Path, key: str, light_python: str
) -> None:
    """A question is answered from an environment that has neither torch nor Celery."""
    with served(Example(name, tmp_path, fleet.redis_url, python=light_python)) as site:
        path = site.asked(SHORT, key)
        eventually(lambda: site.look(path)[0] == "succeeded", what="an answer")
    installed = subprocess.run([light_python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert "inference-fleet-producer" in installed
    assert not {"torch", "vllm", "celery", "inference-fleet"} & {line.split()[0] for line in installed.splitlines()}


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_ends_before_a_proxy_would_cut_it_and_goes_on(
    name: str, fleet: RunningFleet, tmp_path: Path, key: str
) -> None:
    """As a browser does it: come back with the last id until the answer has ended."""
    streams: list[list[Event]] = []
    with served(Example(name, tmp_path, fleet.redis_url, stream_seconds=0.5)) as site:
        path = site.asked(MIDDLE, key)
        while not any(event.name == "ended" for told in streams for event in told):
            last = [event.event_id for told in streams for event in told][-1:]
            with site.following(path, *last) as told:
                streams.append(list(told))
        assert site.look(path) == ("succeeded", text_of(chain(*streams)))
    assert len(streams) > 1
    assert len(text_of(chain(*streams)).split()) == 125


def test_openais_client_is_answered_whole_and_streamed(fleet: RunningFleet, tmp_path: Path) -> None:
    """By the gateway, as the example's first lines say."""
    with running_gateway(fleet.redis_url, tmp_path) as address:
        command = [sys.executable, "examples/openai_client.py", "sim", f"{address}/v1"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    printed = [line.partition(": ") for line in done.stdout.splitlines()]
    assert [kind for kind, _, _ in printed] == ["whole", "streamed", "together", "together"]
    assert all(text for _, _, text in printed)
