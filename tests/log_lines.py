"""What a fleet that logs JSON said, and what must be nowhere in it."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis

from tests.waiting import free_port
from workers.embedded import EmbeddedServer

PASSWORD = "sesam-oeffne-dich-4711"  # noqa: S105 - a test's
MARKER = "xylophon-quagga-zephyr"
"""In every prompt; no line may have it."""
ALWAYS = ("timestamp", "level", "logger", "action", "message", "pid", "process")


@contextmanager
def guarded_server(folder: Path) -> Iterator[str]:
    """The address of a server of its own that asks for :data:`PASSWORD`."""
    with EmbeddedServer(folder / "valkey", free_port()) as server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("requirepass", PASSWORD)
        yield with_password(server.url, PASSWORD)


def with_password(url: str, password: str) -> str:
    """The address with a password in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f":{password}@{parts.hostname}:{parts.port}"))


def lines_of(*files: Path) -> list[dict[str, Any]]:
    """Every line of the files, each an object with the fixed keys; fails on the first that is not."""
    lines = []
    for file in files:
        for text in file.read_text().splitlines():
            line = json.loads(text)
            assert tuple(line)[: len(ALWAYS)] == ALWAYS, text
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"]), text
            assert re.fullmatch(r"[a-z_]+", line["action"]), text
            lines.append(line)
    return lines


def actions(lines: list[dict[str, Any]]) -> set[str]:
    """The words that occur."""
    return {line["action"] for line in lines}
