"""Task messages as senders push them, and what a worker process holds of them: claimed on a real server."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from producer.contract import GenerationRequest
from producer.message import NewJob, task_message
from tests.leasing import MODEL, LeaseQueue
from workers.transport.claimed import ClaimedMessage
from workers.transport.drain_policy import Place
from workers.transport.lease_store import LeaseStore
from workers.transport.leases import Leases
from workers.transport.ledger import Held, Ledger

SUBMISSION = "submission"
"""The token of a submission."""
HANDOVER_SECONDS = 3600.0
"""Long enough that no test lives to see it end."""


def job_message(job_id: str = "j", *, token: str = SUBMISSION, **headers: Any) -> bytes:  # noqa: ANN401 - header values
    """A message as the producer makes it, with some of its headers set to something else."""
    request = GenerationRequest(model=MODEL, prompt="x")
    message = json.loads(task_message(NewJob(job_id, token, request)).at(0.0))
    message["headers"] |= headers
    return json.dumps(message).encode()


def stock_message(job_id: str = "j") -> bytes:
    """A message of a stock Celery sender: it has no header of ours."""
    message = json.loads(job_message(job_id))
    del message["headers"]["fleet"]
    return json.dumps(message).encode()


def claimed(raw: bytes, tag: str = "tag", *, delivery: int = 1, step: int = 3) -> ClaimedMessage:
    """A delivery of this message."""
    return ClaimedMessage(tag, Place(str(step)), delivery, 0, (), raw)


@dataclass
class HeldQueue:
    """A queue under leases, and what one process holds of it."""

    queue: LeaseQueue
    leases: Leases

    @classmethod
    @contextmanager
    def at(cls, url: str) -> Iterator[Self]:
        """On the server at ``url``; nothing is held."""
        with LeaseQueue.at(url) as queue:
            yield cls(queue, Leases(queue.store(), Ledger(HANDOVER_SECONDS)))

    @property
    def store(self) -> LeaseStore:
        """What the process calls."""
        return self.leases.store

    @property
    def ledger(self) -> Ledger:
        """What the process holds."""
        return self.leases.ledger

    def hold(self, *job_ids: str, token: str = SUBMISSION) -> list[Held]:
        """Queue jobs and claim them; none is in the pool yet."""
        for job_id in job_ids:
            self.queue.push(job_message(job_id, token=token))
        messages = self.store.claim(len(job_ids), held=0).messages
        held = [Held(message, job_id, token) for message, job_id in zip(messages, job_ids, strict=True)]
        for entry in held:
            self.ledger.add(entry)
        return held

    def is_leased(self, held: Held) -> bool:
        """Whether the server still counts it as this process's."""
        return self.store.holds(held.tag)
