"""What a run leaves to be judged: submissions as the producer heard of them, results as anybody saw them, Redis."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

TERMINAL_STATES = frozenset({"SUCCESS", "FAILURE", "REVOKED"})


@dataclass(frozen=True, slots=True)
class Submitted:
    """One confirmed submission."""

    key: str
    job_id: str
    enqueued_at: float
    """Seconds since the epoch, by the server's clock where the transport tells."""
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Terminal:
    """One terminal result, as published or stored."""

    digest: str
    """Tells two results apart."""
    status: str
    """Celery's."""
    seen_at: float
    """Seconds since the epoch."""
    job_id: str = ""
    """The id inside the answer; empty for a failure."""
    key: str = ""
    completion_tokens: int = 0
    attempt: int = 0
    """1 for the first; 0 where there is no answer."""

    @classmethod
    def read(cls, payload: bytes, seen_at: float) -> Self | None:
        """From Celery's JSON; None when it says that the job has not ended."""
        stored = orjson.loads(payload)
        status = stored["status"]
        if status not in TERMINAL_STATES:
            return None
        digest = hashlib.sha256(payload).hexdigest()
        answer: Any = stored["result"]
        if status != "SUCCESS" or not isinstance(answer, dict):
            return cls(digest, status, seen_at)
        return cls(
            digest,
            status,
            seen_at,
            job_id=answer["id"],
            key=answer["metadata"]["key"],
            completion_tokens=answer["usage"]["completion_tokens"],
            attempt=answer["attempt"],
        )


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time, in seconds since the epoch, whose writes a server said that it may lose."""

    begins_at: float
    ends_at: float

    def __contains__(self, moment: float) -> bool:
        return self.begins_at <= moment <= self.ends_at


@dataclass(frozen=True)
class Evidence:
    """Everything that the invariants look at."""

    submissions: Sequence[Submitted]
    tokens_by_key: Mapping[str, int]
    """What each job must be answered with."""
    seen: Mapping[str, Sequence[Terminal]]
    """Job id to the different terminal results that were seen, the first seen first."""
    stored: Mapping[str, Terminal]
    """Job id to the terminal result in Redis at the end."""
    residue: Mapping[str, int]
    """Redis key to the number of entries left in it at the end."""
    still_queued: frozenset[str] = frozenset()
    """Ids of jobs whose message is somewhere in Redis at the end."""
    loss_windows: Sequence[Window] = ()
    max_attempt: int | None = None
    """No answer may come from a later attempt than this; None: faults cost attempts in this scenario."""
    job_ids: frozenset[str] = field(init=False)
    """Of all confirmed submissions."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "job_ids", frozenset(each.job_id for each in self.submissions))

    def may_be_lost(self, moment: float) -> bool:
        """Whether the server had said that it may lose what was written at this moment."""
        return any(moment in window for window in self.loss_windows)
