"""One look at a fleet's Redis: two round trips."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, cast

import orjson
from redis import Redis
from redis.client import Pipeline

from producer import keys
from producer.drain_rate import read_rates
from producer.presence import WorkerPresence, present
from producer.queue_counts import count_letters, counting_run, models_with_queues, read_counts
from producer.registry import read_limits
from producer.sampling import DEFAULT_MAX_TOKENS
from producer.script import FLOWS_SCRIPT
from workers.exporter.standing import LANES, LaneSample, ModelStanding

LATE_SECONDS: Final = 1.0
"""A lease that ends so soon was not renewed: workers renew three times in one, of 5 s unless told otherwise."""
SAMPLED_JOBS: Final = 16
"""Of each end of a lane."""


@dataclass(frozen=True, slots=True)
class ServerStanding:
    """What the Redis server says of itself."""

    used_memory_bytes: int
    max_memory_bytes: int
    """0: no limit."""
    connected_clients: int
    evicted_keys: int
    persists: bool
    """It keeps an append-only file, or snapshots, and its last write of them went well."""

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "ServerStanding":
        """From ``INFO``."""
        appends = bool(info.get("aof_enabled")) and info.get("aof_last_write_status") == "ok"
        snapshots = info.get("rdb_last_bgsave_status") == "ok" and bool(info.get("rdb_saves"))
        return cls(
            used_memory_bytes=int(info["used_memory"]),
            max_memory_bytes=int(info["maxmemory"]),
            connected_clients=int(info["connected_clients"]),
            evicted_keys=int(info["evicted_keys"]),
            persists=appends or (not info.get("aof_enabled") and snapshots),
        )


@dataclass(frozen=True, slots=True)
class WebhookStanding:
    """What the webhooks' outbox holds."""

    awaiting: int
    """Of jobs that have not ended."""
    due: int
    """Events that are to be told, now or again later."""
    late_seconds: float
    """Since when the first of these should have been told; 0: none is late."""
    dead: int


@dataclass(frozen=True, slots=True)
class FleetStanding:
    """All of it, at about one moment."""

    server: ServerStanding
    webhooks: WebhookStanding
    models: Sequence[ModelStanding]


class Lookout:
    """Looks with one client, which is not connected before the first look."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        text = files("workers.exporter").joinpath("standing.lua").read_text(encoding="utf-8")
        self._standing = client.register_script(f"{FLOWS_SCRIPT}\n{text}")

    def look(self) -> FleetStanding:
        """How the fleet stands.

        Raises:
            RedisError: the server could not be reached, or refused.
        """
        time, ends, said, models, limits, info, *rest = self._first_round()
        letters, *webhooks = rest
        now = time[0] + time[1] / 1e6
        dead = count_letters(letters)
        most_waiting = read_limits(cast("Mapping[bytes, bytes]", limits))
        workers = present(now, ends, said, model=None)
        served = {worker.model for worker in workers}
        names = models_with_queues({*map(bytes.decode, models), *served}, dead, most_waiting)
        return FleetStanding(
            ServerStanding.of(info),
            _webhook_standing(now, *webhooks),
            self._models(names, now, workers, dead, most_waiting),
        )

    def _first_round(self) -> list[Any]:
        with self._client.pipeline(transaction=False) as asked:
            asked.time()
            asked.zrange(keys.WORKERS, 0, -1, withscores=True)
            asked.hgetall(keys.WORKERS_SAID)
            asked.hkeys(keys.MODELS)
            asked.hgetall(keys.LIMITS)
            asked.info()
            asked.hvals(keys.DEAD_LETTER_MODELS)
            asked.zcard(keys.WEBHOOKS_AWAITING)
            asked.zcard(keys.WEBHOOKS_DUE)
            asked.zrange(keys.WEBHOOKS_DUE, 0, 0, withscores=True)
            asked.zcard(keys.WEBHOOKS_DEAD)
            return asked.execute()

    def _models(
        self,
        names: Sequence[str],
        now: float,
        workers: Sequence[WorkerPresence],
        dead: Mapping[str, int],
        limits: Mapping[str, int | None],
    ) -> list[ModelStanding]:
        if not names:
            return []
        run = counting_run(names)
        with self._client.pipeline(transaction=False) as asked:
            asked.eval(run.script.text, 0, *map(str, run.arguments))
            self._ask_standing(asked, names)
            for name in names:
                asked.hvals(keys.QueueKeys(name).drained)
            counted, stood, *rings = asked.execute()
        counts = read_counts(run, counted, dead, limits)
        rates = read_rates(dict(zip(names, rings, strict=True)), now)
        return [
            ModelStanding(
                count,
                [LaneSample.of(lane) for lane in found["lanes"]],
                found["late_leases"],
                found["redelivered"],
                found["held_tenants"],
                rates.get(count.model),
                [worker for worker in workers if worker.model == count.model],
            )
            for count, found in zip(counts, orjson.loads(stood), strict=True)
        ]

    def _ask_standing(self, asked: Pipeline, names: Sequence[str]) -> None:
        steps = [str(keys.PRIORITY_STEPS[lane]) for lane in LANES]
        self._standing(args=[LATE_SECONDS, SAMPLED_JOBS, DEFAULT_MAX_TOKENS, len(steps), *steps, *names], client=asked)


def _webhook_standing(
    now: float, awaiting: int, due: int, first_due: Sequence[tuple[bytes, float]], dead: int
) -> WebhookStanding:
    late_seconds = max(0.0, now - first_due[0][1]) if first_due else 0.0
    return WebhookStanding(awaiting, due, late_seconds, dead)
