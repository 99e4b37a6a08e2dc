"""Jobs by tenant, the latest first (``fleet:jobs:<tenant>``): of producers that were asked to list theirs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from producer.errors import InvalidRequest, ResultExpired
from producer.jobs import JobState, JobStatus
from producer.outcome import status_of

MOST_LISTED: Final = 100_000
"""Jobs in one list; the oldest leave first."""
MOST_IN_PAGE: Final = 1_000
ALL_TENANTS: Final = "*"
LOOKED_AT_TOGETHER: Final = 200
HEAD_BYTES: Final = 2048
"""Of a stored result: an answer may have megabytes, a failure fits."""
MOST_LOOKED_AT: Final = 5_000
"""Jobs looked at for one page: a page of a rare state may be short, and still say where the next one begins."""


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some of the jobs that were asked for, the latest first."""

    jobs: tuple[JobStatus, ...]
    after: str | None
    """To ask for the next page with; None when there is none."""


class PageScan:
    """Reads a list until a page is full, or enough was looked at."""

    def __init__(self, state: JobState | None, limit: int) -> None:
        if not 1 <= limit <= MOST_IN_PAGE:
            raise InvalidRequest(f"limit: 1 to {MOST_IN_PAGE:,} jobs, not {limit}")
        self._state = state
        self._limit = limit
        self._found: list[JobStatus] = []
        self._looked_at = 0
        self.last: str | None = None
        """The last job that was looked at."""
        self._is_over = False

    @property
    def wants_more(self) -> bool:
        """Whether another look is needed."""
        return not self._is_over and len(self._found) < self._limit and self._looked_at < MOST_LOOKED_AT

    def take(self, job_ids: Sequence[str], known: Iterable[tuple[Mapping[bytes, bytes], bytes]]) -> None:
        """The next part of the list, with each job's record and the beginning of its result."""
        self._is_over = len(job_ids) < LOOKED_AT_TOGETHER
        for place, (job_id, (record, head)) in enumerate(zip(job_ids, known, strict=True)):
            self.last = job_id
            self._looked_at += 1
            status = _listed_status(job_id, record, head)
            if status is not None and self._state in (None, status.state):
                self._found.append(status)
            if len(self._found) == self._limit:
                self._is_over = self._is_over and place == len(job_ids) - 1
                return

    def page(self) -> JobPage:
        """What was found."""
        return JobPage(tuple(self._found), None if self._is_over else self.last)


_STATES: Final = {"SUCCESS": JobState.SUCCEEDED, "FAILURE": JobState.FAILED, "REVOKED": JobState.CANCELLED}


def _listed_status(job_id: str, record: Mapping[bytes, bytes], head: bytes) -> JobStatus | None:
    """Where the job stands; None when nothing is known of it any more."""
    try:
        if len(head) < HEAD_BYTES:
            known = status_of(job_id, record, head or None)
        else:
            # Too long to be read whole; its first bytes say what it is.
            stored = re.search(r'"status": ?"([A-Z]+)"', head[:64].decode(errors="replace"))
            unended = {name: value for name, value in record.items() if name != b"state"}
            known = status_of(job_id, unended, None)
            known = replace(known, state=_STATES.get(stored[1], known.state) if stored else known.state)
    except ResultExpired:
        return None
    return replace(known, usage=None, timings=None, attempts=())


def no_such_place(after: str | None) -> InvalidRequest:
    """The error of a page that begins after a job that is not in the list."""
    return InvalidRequest(f"after: no job {after!r} is in this list (any more); begin again without it")
