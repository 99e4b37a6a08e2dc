"""Free ports, and waiting on a condition with a deadline instead of sleeping and hoping."""

import socket
import time
from collections.abc import Callable

import pytest


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(condition: Callable[[], object], *, seconds: float = 30.0, what: str = "the condition") -> None:
    """Wait until ``condition()`` is true; fail with ``what`` when it is not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {seconds} s")
        time.sleep(0.02)
