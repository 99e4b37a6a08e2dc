"""Looking for results in one thread, and waiting out a Redis that is away."""

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from redis.exceptions import RedisError

from producer.connection import OUTAGE_SECONDS, Deadline, Outage
from producer.link import Link
from producer.watch import PollSchedule
from producer.window import Window

Answer = TypeVar("Answer")


class Polling:
    """What ``map`` and ``results`` ask Redis again and again.

    ``patience_seconds`` is for a Redis that has not answered yet, None for ever; once it has answered, ``map`` and
    ``submit_many`` have :data:`~producer.connection.OUTAGE_SECONDS`.
    """

    def __init__(self, link: Link, *, patience_seconds: float | None = 0, deadline: Deadline | None = None) -> None:
        self._link = link
        self._deadline = deadline or Deadline(None)
        self._patience_seconds = patience_seconds
        self._outage = Outage(patience_seconds)

    def look(self, window: Window, schedule: PollSchedule) -> None:
        """Note which jobs have ended."""
        if not schedule.presence_is_due():
            for job_ids in window.watch.next_look():
                window.seen(self.outlast(partial(self._link.results, job_ids)))
            return
        for job_ids in window.watch.everything():
            without_record = self.outlast(partial(self._link.without_record, job_ids))
            stored = self.outlast(partial(self._link.results, job_ids))
            window.seen(stored)
            window.gone(without_record, stored)

    def outlast(self, ask: Callable[[], Answer]) -> Answer:
        """What Redis answers; an outage is waited out, for a while.

        Raises:
            RedisError: Redis refuses, or stays away.
        """
        while True:
            try:
                answer = ask()
            except RedisError as error:
                pause_seconds = self._outage.pause_seconds(error)
                if self._deadline.has_passed:
                    raise
                time.sleep(self._deadline.remaining(pause_seconds))
            else:
                self.answered()
                return answer

    def answered(self) -> None:
        """Redis has answered: from now on an outage is waited out."""
        self._outage = Outage(None if self._patience_seconds is None else OUTAGE_SECONDS)
