"""A queue under leases on a real server: messages in, time made to pass, and what is where."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import redis
from redis.client import PubSub

from producer import keys
from producer.contract import Priority
from producer.script import FLOWS_SCRIPT
from tests.waiting import eventually
from workers.transport.claimed import ClaimedMessage
from workers.transport.lease_store import DeadLetter, Finish, LeasePolicy, LeaseStore

MODEL: Final = "llama"
POLICY: Final = LeasePolicy(lease_seconds=3600.0)
"""Long enough that no lease ends by itself: tests end them."""
LONG_AGO: Final = 0.0
"""A moment, in seconds since the epoch, that any clock has passed."""


PLACE: Final = (
    FLOWS_SCRIPT
    + """
local step, tenant, prompt, output, deadline, prefix, number = unpack(ARGV, 2, 8)
if number == '' then
  number = arrival_number(ARGV[1], redis.call('TIME'), 0)
end
local place = table.concat({step, tenant, number, prompt, output, deadline, prefix}, '|')
place_job(ARGV[1], parse_place(place), ARGV[9])
"""
)


@dataclass(frozen=True)
class FlowJob:
    """A job that is more than first come, first served."""

    message: bytes
    tenant: str = ""
    priority: Priority = Priority.NORMAL
    prompt_tokens: int = 10
    output_tokens: int = 90
    deadline: float | None = None
    prefix: str = ""
    """Hexadecimal."""
    arrived_at: float | None = None
    """Seconds since the epoch; now, if none is given."""


@dataclass(frozen=True)
class LeaseQueue:
    """The queue of one model, and how a test looks at it."""

    client: "redis.Redis"
    policy: LeasePolicy = POLICY

    @classmethod
    @contextmanager
    def at(cls, url: str) -> Iterator[Self]:
        """On the server at ``url``."""
        with redis.Redis.from_url(url) as client:
            yield cls(client)

    @property
    def keys(self) -> keys.QueueKeys:
        """Names of what belongs to the queue."""
        return keys.QueueKeys(MODEL)

    def with_policy(self, policy: LeasePolicy) -> Self:
        """The same queue under another policy."""
        return replace(self, policy=policy)

    def store(self, consumer: str = "one") -> LeaseStore:
        """What the consumer of this name calls."""
        return LeaseStore(self.client, MODEL, self.policy, consumer=consumer, worker=f"{consumer}@host")

    def push(self, *messages: bytes, priority: Priority = Priority.NORMAL) -> None:
        """Queue messages, the first of them to be claimed first."""
        self.client.lpush(keys.lane(MODEL, priority), *messages)

    def place(self, *jobs: FlowJob) -> None:
        """Let jobs wait in flows."""
        place = self.client.register_script(PLACE)
        for job in jobs:
            number = "" if job.arrived_at is None else f"{job.arrived_at * 1e6:016.0f}000000"
            deadline = "" if job.deadline is None else job.deadline
            step = keys.PRIORITY_STEPS[job.priority]
            sizes = (f"t{job.prompt_tokens}", job.output_tokens)
            place([], [MODEL, step, job.tenant, *sizes, deadline, job.prefix, number, job.message])

    def waiting(self, priority: Priority = Priority.NORMAL) -> list[bytes]:
        """What waits in a lane, the first to be claimed first."""
        messages: list[Any] = self.client.lrange(keys.lane(MODEL, priority), 0, -1)
        return messages[::-1]

    def waiting_apart(self) -> list[bytes]:
        """The suspects, the first to be claimed first."""
        entries: list[Any] = self.client.lrange(self.keys.suspects, 0, -1)
        return [entry.partition(b"\n")[2] for entry in reversed(entries)]

    def expire(self, *tags: str) -> None:
        """The leases of these tags, or all of them, have ended."""
        self._pass_by(self.keys.leases, tags)

    def come_due(self) -> None:
        """The time of everything that was put off has come."""
        self._pass_by(self.keys.delayed)

    def _pass_by(self, name: str, members: Sequence[str] = ()) -> None:
        some: Any = members or self.client.zrange(name, 0, -1)
        if some:
            self.client.zadd(name, dict.fromkeys(some, LONG_AGO), xx=True)

    def leftovers(self) -> list[str]:
        """Side keys that hold something; none of them may, when every message is done."""
        names = self.keys
        side_keys = [names.leases, names.leased, names.redelivery, names.suspects, names.delayed, names.isolation]
        side_keys += [names.waiting, names.charged, names.running, f"fleet:turns:{MODEL}", f"fleet:held:{MODEL}"]
        kinds = ("order", "prefixes", "deadlines", "shares", "spent")
        side_keys += [f"fleet:{kind}:{step}:{MODEL}" for kind in kinds for step in keys.PRIORITY_STEPS.values()]
        return [name for name in side_keys if self.client.exists(name)]

    def result(self, job: str) -> bytes | None:
        """What the job's caller reads."""
        stored: Any = self.client.get(keys.result(job))
        return None if stored is None else bytes(stored)


def run_down(queue: LeaseQueue, deaths: int, consumer: str = "doomed") -> None:
    """Every message of the queue is claimed, and its worker dies, ``deaths`` times over."""
    store = queue.store(consumer)
    for _ in range(deaths):
        while claimed := store.claim(64, held=0).messages:
            queue.expire(*tags(claimed))
        store.reap()
        queue.client.delete(queue.keys.isolation)  # its lease has ended too


def tags(messages: Sequence[ClaimedMessage]) -> list[str]:
    """Under which they were claimed."""
    return [message.tag for message in messages]


def raws(messages: Sequence[ClaimedMessage]) -> list[bytes]:
    """The messages themselves."""
    return [message.raw for message in messages]


def answer(text: str, status: str = "SUCCESS") -> bytes:
    """A result as Celery stores it."""
    return json.dumps({"status": status, "result": text}).encode()


def end(tag: str, job: str, text: str = "fine", *, dead_letter: DeadLetter | None = None) -> Finish:
    """The end of ``job`` under ``tag``."""
    result = answer(text, "FAILURE" if dead_letter else "SUCCESS")
    return Finish(tag, keys.result(job), result, lifetime_seconds=60, dead_letter=dead_letter)


@contextmanager
def publications(queue: LeaseQueue, job: str) -> Iterator[Callable[[], list[bytes]]]:
    """What the job's caller hears while it listens; calling looks for more."""
    with PubSub(queue.client.connection_pool, ignore_subscribe_messages=True) as listener:
        listener.subscribe(keys.result(job))
        heard: list[bytes] = []

        def published() -> list[bytes]:
            while news := listener.get_message():
                heard.append(news["data"])
            return heard

        # Wait for the server's word: what is published before it is heard by nobody.
        eventually(lambda: queue.client.pubsub_numsub(keys.result(job)) == [(keys.result(job).encode(), 1)])
        yield published
