"""Claim, renew, finish, give up and reap leases of one model's queue: every step is one Lua script.

A *delivery* is one claim of one message; its *tag* is fresh, so whatever arrives under an old tag changes nothing.
Times come from the Redis server: the clocks of workers play no part in who holds what.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import redis
from redis.commands.core import Script

from producer import keys
from workers.transport.claimed import Claim, claimed_message
from workers.transport.drain_policy import DrainPolicy, Room, options_json
from workers.transport.scripts import SCRIPTS

ANY_ROOM: Final = Room()
SUSPECT_GROUP_JOBS: Final = 8
"""Suspects that share an engine; of each group that dies again, every member gets its last delivery alone."""
OWN_DOORBELL_SECONDS: Final = 60
REAP_LIMIT: Final = 100
RENEW_LIMIT: Final = 1000
"""Tags in one call, so that none keeps the server long."""


class FinishStatus(StrEnum):
    """What became of a result."""

    STORED = "stored"
    """It is the job's result, and the message is acknowledged."""
    KEPT = "kept"
    """The job had a result already, which stays; the message is acknowledged."""
    FENCED = "fenced"
    """The lease was lost: nothing was written, another attempt answers."""


class Release(StrEnum):
    """How a lease is given up without a result."""

    HAND_BACK = "hand_back"
    """Back to its place, nothing counted: the worker is stopping."""
    SUSPECT = "suspect"
    """The engine died while it ran this: counted, and run apart from others from now on."""
    RETRY = "retry"
    """Later, after a delay; counted as a retry, not as a delivery."""
    PARK = "park"
    """Later, after a delay; nothing counted: its time has not come."""


class Screening(StrEnum):
    """Whether a claimed job need be run."""

    RUN = "run"
    SETTLED = "settled"
    """Its result exists."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """How long a claim holds, and how often a message may be claimed."""

    lease_seconds: float = 5.0
    max_deliveries: int = 3
    record_lifetime_seconds: int = keys.JOB_RECORD_SECONDS
    """How long it is remembered that a message's attempts went wrong."""
    drain: DrainPolicy = field(default_factory=DrainPolicy)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message on its way out of the queue, for an operator to look at."""

    letter_id: str
    text: str
    """JSON; :mod:`producer.dead_letters` reads it."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of one job."""

    tag: str
    result_key: str
    result: bytes
    """Celery's stored JSON."""
    lifetime_seconds: int
    """0 keeps it for ever."""
    dead_letter: DeadLetter | None = None
    tokens: int | None = None
    """Prompt and output together, where known: what its tenant is charged in place of the estimate."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a renewal found."""

    lost_tags: frozenset[str]
    has_cancels: bool
    """Somebody cancelled something on this queue."""


class LeaseStore:
    """The leases of one model's queue, as one consumer sees them; safe to share between threads."""

    def __init__(self, client: "redis.Redis", model: str, policy: LeasePolicy, *, consumer: str, worker: str) -> None:
        """Use ``client`` for the queue of ``model``.

        Args:
            client: connection pool of the fleet's Redis.
            model: served name.
            policy: lifetimes and limits; all workers of a queue should agree.
            consumer: prefix of this consumer's tags, unique per process for all time.
            worker: Celery node name, for people.
        """
        self.policy = policy
        self._client = client
        self._consumer = consumer
        self._worker = worker
        names = self._keys = keys.QueueKeys(model)
        ending = (names.leases, names.leased, names.redelivery)
        self._moving = (*ending, names.suspects)
        self._burying = (*ending, keys.DEAD_LETTERS, keys.DEAD_LETTER_INDEX)
        self._steps = sorted(keys.PRIORITY_STEPS.values())
        self._lanes = [keys.lane_of_step(model, step) for step in self._steps]
        self._scripts: dict[str, Script] = {name: client.register_script(text) for name, text in SCRIPTS.items()}

    def is_own(self, tag: str) -> bool:
        """Whether this consumer claimed under this tag; kombu's own tags are others."""
        return isinstance(tag, str) and tag.startswith(f"{self._consumer}.")

    @property
    def own_doorbell(self) -> str:
        """Where this consumer wakes itself."""
        return keys.own_doorbell(self._consumer)

    def ring_own_doorbell(self) -> None:
        """End this consumer's wait."""
        with self._client.pipeline() as transaction:
            transaction.lpush(self.own_doorbell, "1")
            transaction.expire(self.own_doorbell, OWN_DOORBELL_SECONDS)
            transaction.execute()

    def own_tags(self) -> list[str]:
        """Tags of every lease that this consumer has on the server; looks at the leases of all consumers."""
        tags: Any = self._client.hkeys(self._keys.leased)
        return [tag.decode() for tag in tags if self.is_own(tag.decode())]

    def claim(self, credit: int, held: int, acknowledge: Sequence[str] = (), room: Room = ANY_ROOM) -> Claim:
        """Acknowledge ``acknowledge`` and claim up to ``credit`` messages, while the consumer holds ``held``."""
        names = self._keys
        script_keys = [*self._moving, names.isolation, names.delayed, names.claim_counter]
        policy = self.policy
        arguments: list[str | int | float] = [
            self._consumer,
            self._worker,
            credit,
            room.reserved_slots,
            held,
            policy.lease_seconds,
            policy.max_deliveries,
            SUSPECT_GROUP_JOBS,
            options_json(policy.drain, room),
            len(self._steps),
            *self._steps,
            *acknowledge,
        ]
        now, isolating, full, *parts = self._scripts["claim"]([*script_keys, *self._lanes], arguments)
        messages = tuple(claimed_message(parts[index : index + 7]) for index in range(0, len(parts), 7))
        return Claim(float(now), bool(isolating), bool(full), messages)

    def finish(self, ends: Sequence[Finish]) -> list[FinishStatus]:
        """Store results and acknowledge, each only while its lease is held. Repeating after an error is safe."""
        script_keys = [*self._burying, self._keys.cancels, *(end.result_key for end in ends)]
        arguments: list[str | bytes | int] = []
        for end in ends:
            letter = end.dead_letter
            arguments += [end.tag, end.result, end.lifetime_seconds]
            arguments += [letter.letter_id, letter.text] if letter else ["", ""]
            arguments.append("" if end.tokens is None else end.tokens)
        reply = self._scripts["finish"](script_keys, arguments)
        return [FinishStatus(status.decode()) for status in reply]

    def bury(self, tag: str, letter: DeadLetter) -> bool:
        """Move a message that has no job to answer to the dead letters; False when the lease was lost."""
        return bool(self._scripts["bury"](list(self._burying), [tag, letter.letter_id, letter.text]))

    def renew(self, tags: Iterable[str]) -> Renewal:
        """Extend these leases to a whole ``lease_seconds`` from now."""
        held = list(tags)
        lost: set[str] = set()
        has_cancels = False
        for start in range(0, max(len(held), 1), RENEW_LIMIT):
            some = held[start : start + RENEW_LIMIT]
            any_cancels, *missing = self._scripts["renew"](
                [self._keys.leases, self._keys.isolation, self._keys.cancels],
                [self._consumer, self.policy.lease_seconds, *some],
            )
            lost.update(tag.decode() for tag in missing)
            has_cancels = has_cancels or bool(any_cancels)
        return Renewal(frozenset(lost), has_cancels)

    def reap(self, limit: int = REAP_LIMIT) -> list[str]:
        """Hand up to ``limit`` expired leases back, whoever held them; their tags."""
        script_keys = [*self._moving, *self._lanes]
        policy = self.policy
        arguments = [limit, policy.max_deliveries, policy.record_lifetime_seconds, *self._steps]
        return [tag.decode() for tag in self._scripts["reap"](script_keys, arguments)]

    def release(self, tags: Iterable[str], how: Release, *, reason: str = "", delay_seconds: float = 0.0) -> int:
        """Give leases up without a result; how many of them were still held."""
        script_keys = [*self._moving, self._keys.delayed, self._keys.isolation]
        policy = self.policy
        arguments = [
            how.value,
            policy.max_deliveries,
            policy.record_lifetime_seconds,
            delay_seconds,
            reason,
            self._consumer,
            len(self._steps),
            *self._steps,
            *tags,
        ]
        return int(self._scripts["release"]([*script_keys, *self._lanes], arguments))

    def screen(self, job_ids: Sequence[str]) -> list[tuple[Screening, str]]:
        """Per job whether it need be run; for a cancelled one, the submission token that was cancelled."""
        script_keys = [self._keys.cancels, *(keys.result(job_id) for job_id in job_ids)]
        screened = []
        for answer in self._scripts["screen"](script_keys, list(job_ids)):
            word, _, token = answer.decode().partition(" ")
            screened.append((Screening(word), token))
        return screened

    def cancelled_tokens(self, job_ids: Sequence[str]) -> list[str | None]:
        """Per job the submission token that was cancelled, or None."""
        found: list[Any] = self._client.hmget(self._keys.cancels, list(job_ids)) if job_ids else []
        return [None if token is None else token.decode() for token in found]

    def forget_cancels(self, job_ids: Sequence[str]) -> None:
        """These cancellations have taken effect."""
        if job_ids:
            self._client.hdel(self._keys.cancels, *job_ids)

    def server_uptime_seconds(self) -> float:
        """How long the server has been running."""
        info: Any = self._client.info("server")
        return float(info["uptime_in_seconds"])

    def holds(self, tag: str) -> bool:
        """Whether the lease under this tag still is."""
        return self._client.zscore(self._keys.leases, tag) is not None
