"""How much memory there is, for the server that ``fleet up`` starts."""

from pathlib import Path

import psutil
import pytest
import redis

from tests.waiting import free_port
from workers.embedded import EmbeddedServer
from workers.machine_memory import machine_memory_bytes


@pytest.mark.parametrize(("said", "is_less"), [("1048576\n", True), ("max\n", False), ("9223372036854771712", False)])
def test_a_containers_limit_counts_where_it_is_less(tmp_path: Path, said: str, is_less: bool) -> None:  # noqa: FBT001
    """Both versions of cgroups have a word, or a number, for none."""
    limit = tmp_path / "memory.max"
    limit.write_text(said)
    found = machine_memory_bytes((limit, tmp_path / "not there"))
    assert found == (1024 * 1024 if is_less else psutil.virtual_memory().total)


@pytest.mark.parametrize("given", [0, 64 * 1024 * 1024])
def test_the_server_that_we_start_is_bounded_and_drops_nothing(tmp_path: Path, given: int) -> None:
    """By half of that, unless it is told."""
    with (
        EmbeddedServer(tmp_path, free_port(), max_memory_bytes=given) as server,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
    ):
        found = client.config_get("maxmemory*")
    assert int(found["maxmemory"]) == (given or machine_memory_bytes() // 2)
    assert found["maxmemory-policy"] == "noeviction"
