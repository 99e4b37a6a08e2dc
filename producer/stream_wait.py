"""Following one job's answer in one thread."""

import time
from collections.abc import Iterator
from typing import Final

from redis.exceptions import RedisError

from producer.connection import Deadline, Outage
from producer.contract import GenerationResult
from producer.link import Link
from producer.outcome import answer, not_ready
from producer.stream_entries import FIRST_ID, MOST_ENTRIES
from producer.stream_reading import StreamEvent, StreamReading

IDLE_SECONDS: Final = 0.25
"""How long nothing is heard of a job that says nothing yet, until its result is looked for."""
QUIET_SECONDS: Final = 0.05
"""The same of one that has begun: its last words come with its result."""


def events(link: Link, job_id: str, after: str, deadline: Deadline) -> Iterator[StreamEvent]:
    """What the job says from the position ``after`` on, until it has ended; an outage of Redis only delays.

    Raises:
        InvalidRequest: ``after`` is no position.
        InferenceFailed: the job failed.
        ResultExpired: nothing is known of it.
        ResultNotReady: the deadline passed first.
        RedisError: Redis was away when the deadline passed, or refuses for good.
    """
    reading, last, outage = StreamReading(after), FIRST_ID, Outage(patience_seconds=None)
    while True:
        try:
            quiet_seconds = IDLE_SECONDS if last == FIRST_ID else QUIET_SECONDS
            last, entries = _said(link, job_id, last, max(1, int(deadline.remaining(quiet_seconds) * 1000)))
            result = None if entries else _result(link, job_id)
            while result is not None and (rest := link.said(job_id, last, None))[1]:  # told between the two looks
                last, entries = rest[0], entries + rest[1]
            outage.over()
        except RedisError as error:
            pause_seconds = outage.pause_seconds(error)
            if deadline.has_passed:
                raise
            time.sleep(deadline.remaining(pause_seconds))
            continue
        yield from reading.entries(entries)
        if result is not None:
            yield from reading.end(result)
            return
        if deadline.has_passed:
            raise not_ready(job_id)


def _said(link: Link, job_id: str, after: str, block_ms: int) -> tuple[str, list[bytes]]:
    """The next entries; at the beginning all that are stored, since only the last of them tell which attempt counts."""
    last, entries = link.said(job_id, after, block_ms)
    more = entries
    while after == FIRST_ID and len(more) == MOST_ENTRIES:
        last, more = link.said(job_id, last, None)
        entries = entries + more
    return last, entries


def _result(link: Link, job_id: str) -> GenerationResult | None:
    has_record, meta = link.presence(job_id)
    return answer(job_id, has_record=has_record, meta=meta)
