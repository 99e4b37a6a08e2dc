"""What workers without jobs ask of their server: commands, connections and CPU time."""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

from benchmarks.scaling.fleet import Fleet
from benchmarks.scaling.server import own_server, usage

MILLISECONDS = 1000
SETTLE_SECONDS = 2.0
"""After the last worker's start."""


def measure(counts: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """One row per number of workers; 0 is the server alone."""
    rows = []
    with (
        own_server() as url,
        tempfile.TemporaryDirectory() as folder,
        Fleet(url, Path(folder)) as fleet,
        redis.Redis.from_url(url) as client,
    ):
        for count in counts:
            fleet.grow_to(count)
            time.sleep(min(SETTLE_SECONDS, seconds))
            rows.append({"workers": count} | _cost(fleet, client, seconds) | _commands(client, count, seconds))
    return rows


def _cost(fleet: Fleet, client: redis.Redis, seconds: float) -> dict[str, Any]:
    before, workers_before, sent_before = usage(client), fleet.cpu_seconds(), _network(client)
    time.sleep(seconds)
    spent, workers_seconds = usage(client) - before, fleet.cpu_seconds() - workers_before
    own, clients = 1, _clients(client)
    return {
        "server_ms_per_second": round(spent.main_thread_seconds * MILLISECONDS / seconds, 3),
        "workers_cpu_ms_per_second": round(workers_seconds * MILLISECONDS / seconds, 2),
        "network_bytes_per_second": round((_network(client) - sent_before) / seconds),
        "connections": clients - own,
    }


def _network(client: redis.Redis) -> int:
    stats: Any = client.info("stats")
    return int(stats["total_net_input_bytes"]) + int(stats["total_net_output_bytes"])


def _clients(client: redis.Redis) -> int:
    clients: Any = client.info("clients")
    return int(clients["connected_clients"])


def _commands(client: redis.Redis, workers: int, seconds: float) -> dict[str, Any]:
    """By MONITOR, which tells a client's commands from those inside scripts; not while CPU time is counted."""
    if not workers:  # it would wait for ever
        return {"client_commands_per_second": 0.0, "commands_in_scripts_per_second": 0.0, "by_name": {}}
    seen: Counter[str] = Counter()
    in_scripts = 0
    with client.monitor() as monitor:
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            command = monitor.next_command()
            if command["client_type"] == "lua":
                in_scripts += 1
            else:
                seen[command["command"].split(" ")[0].upper()] += 1
    return {
        "client_commands_per_second": round(sum(seen.values()) / seconds, 2),
        "commands_in_scripts_per_second": round(in_scripts / seconds, 2),
        "by_name": {name: round(count / seconds, 2) for name, count in seen.most_common()},
    }
