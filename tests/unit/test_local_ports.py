"""Which ports a fleet on one machine takes."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.local.stack import LocalStack, StackFailed, free_port


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


@pytest.mark.parametrize("name", ["gateway.port", "flower.port", "metrics.port", "exporter.port"])
def test_a_port_that_was_asked_for_and_is_taken_is_refused(name: str, taken: int, tmp_path: Path) -> None:
    """Before anything is started: who named it would look for the fleet there."""
    with (
        pytest.raises(StackFailed, match=rf"{name} is {taken} .*listens there already"),
        LocalStack(tmp_path / "fleet", {name: taken}),
    ):
        pass
    assert list((tmp_path / "fleet").iterdir()) == []


def test_a_port_that_nobody_asked_for_in_particular_may_be_another(taken: int) -> None:
    """Two fleets on one machine do not trouble each other."""
    assert free_port(taken) not in {taken, 0}
