"""The process that submits, so that it can be killed while it does: ``python -m tests.chaos.submitter ORDERS``.

It writes each confirmed submission to its ledger, one JSON object a line, and begins at the first job whenever it is
started: what an earlier process submitted has the same idempotency keys.
"""

import json
import logging
import signal
import sys
import threading
import zlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol, Self

import redis

from producer import Producer, keys
from producer.errors import FleetUnreachable
from tests.chaos.evidence import Submitted
from tests.chaos.jobs import Job, JobShape, job_of
from tests.chaos.stock import StockProducer

log = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 0.05
LOOK_EVERY_JOBS: Final = 20
"""The queue's length is looked at once per so many jobs."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What to submit."""

    redis_url: str
    model: str
    transport: str
    """``fleet`` or ``stock``."""
    ledger: str
    jobs: int
    """At least so many; it goes on until SIGTERM."""
    backlog: int
    """It waits while more are queued."""
    shape: JobShape

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From the command line."""
        fields = json.loads(text)
        return cls(**fields | {"shape": JobShape(**fields["shape"])})


class Door(Protocol):
    """Where jobs are handed in."""

    def submit(self, job: Job, shape: JobShape) -> Submitted:
        """Hand one in. A FleetUnreachable or RedisError means that it may be handed in again."""


KINDS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"tenant": "one"},
    {"tenant": "other"},
    {"prompt_cache_key": "a document"},
)
"""Jobs wait in the lane's list and in flows; each job always as the same kind, for it may be handed in again."""


class FleetDoor:
    """The fleet's own producer."""

    def __init__(self, redis_url: str, model: str) -> None:
        self._producer = Producer(redis_url)
        self._model = model

    def submit(self, job: Job, shape: JobShape) -> Submitted:
        """See :class:`Door`."""
        seconds = shape.deadline_seconds
        submission = self._producer.submit(
            model=self._model,
            prompt=job.prompt,
            sampling={"max_tokens": job.tokens, "ignore_eos": True},
            idempotency_key=job.key,
            metadata={"key": job.key},
            deadline=None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds),
            **KINDS[zlib.crc32(job.key.encode()) % len(KINDS)],
        )
        return Submitted(job.key, submission.job_id, submission.enqueued_at, submission.duplicate)


class Submitter:
    """The loop of the process."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._stopping = threading.Event()
        self._client = redis.Redis.from_url(orders.redis_url)
        self._door: Door = (
            StockProducer(orders.redis_url)
            if orders.transport == "stock"
            else FleetDoor(orders.redis_url, orders.model)
        )

    def stop(self, *_: object) -> None:
        """Submit no more than was ordered at least."""
        self._stopping.set()

    def run(self) -> None:
        """Submit until told to stop."""
        number = 0
        with Path(self._orders.ledger).open("a", encoding="utf-8") as ledger:
            while number < self._orders.jobs or not self._stopping.is_set():
                try:
                    if number % LOOK_EVERY_JOBS == 0 and self._is_full():
                        threading.Event().wait(PAUSE_SECONDS)
                        continue
                    submitted = self._door.submit(job_of(self._orders.shape, number), self._orders.shape)
                except (FleetUnreachable, redis.exceptions.RedisError) as error:
                    log.warning("job %d is submitted again: %s", number, error)
                    threading.Event().wait(PAUSE_SECONDS)
                    continue
                # One write per line, so a killed process leaves whole lines but for the last.
                ledger.write(json.dumps(asdict(submitted)) + "\n")
                ledger.flush()
                number += 1

    def _is_full(self) -> bool:
        return sum(self._client.llen(lane) for lane in keys.all_lanes(self._orders.model)) >= self._orders.backlog


def read_ledger(path: Path) -> list[Submitted]:
    """Every confirmed submission; the line that a killed process did not finish is none."""
    if not path.exists():
        return []
    return [Submitted(**json.loads(line)) for line in path.read_text().splitlines(keepends=True) if line[-1] == "\n"]


def main() -> None:
    """Run one process."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    submitter = Submitter(Orders.from_json(sys.argv[1]))
    signal.signal(signal.SIGTERM, submitter.stop)
    submitter.run()


if __name__ == "__main__":
    main()
