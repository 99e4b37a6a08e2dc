"""Free ports, and waiting on a condition with a deadline instead of sleeping and hoping."""

import random
import socket
import time
from collections.abc import Callable

import pytest

# Below the ports that the kernel gives to outgoing connections: one of those could take ours before we listen on it.
PORTS = range(11_000, 32_000)
PORTS_OF_A_FLEET = 4


def free_port() -> int:
    """The first of ``PORTS_OF_A_FLEET`` TCP ports in a row that nobody listens on: a second worker takes the next."""
    while True:
        port = random.randrange(PORTS.start, PORTS.stop - PORTS_OF_A_FLEET)  # noqa: S311 - no secret
        if all(_is_free(port + offset) for offset in range(PORTS_OF_A_FLEET)):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def eventually(condition: Callable[[], object], *, seconds: float = 120.0, what: str = "the condition") -> None:
    """Wait until ``condition()`` is true; fail with ``what`` when it is not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {seconds} s")
        time.sleep(0.02)
