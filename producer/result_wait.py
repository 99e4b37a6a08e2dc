"""Waiting for one result in one thread: told by publication, and looking once a second in case that was missed."""

import time

from redis.client import PubSub
from redis.exceptions import RedisError

from producer import keys
from producer.connection import FALLBACK_SECONDS, Deadline, Outage
from producer.contract import GenerationResult
from producer.link import Link
from producer.outcome import answer, not_ready


class ResultWait:
    """One caller waiting for one job, on a connection of its own while it waits."""

    def __init__(self, link: Link, job_id: str) -> None:
        self._link = link
        self._job_id = job_id
        self._subscription: PubSub | None = None

    def until(self, deadline: Deadline) -> GenerationResult:
        """The result, as soon as it is there; a Redis that goes away is waited for too.

        Raises:
            InferenceFailed: the job failed.
            ResultExpired: neither its record nor a result exists.
            ResultNotReady: the deadline passed first.
            RedisError: Redis was away when the deadline passed, or refuses for good.
        """
        outage = Outage(patience_seconds=None)
        try:
            while True:
                try:
                    if (result := self._look()) is not None:
                        return result
                    outage.over()
                    if deadline.has_passed:
                        raise not_ready(self._job_id)
                    self._listen(deadline.remaining(FALLBACK_SECONDS))
                except RedisError as error:
                    self._stop_listening()
                    pause_seconds = outage.pause_seconds(error)
                    if deadline.has_passed:
                        raise
                    time.sleep(deadline.remaining(pause_seconds))
        finally:
            self._stop_listening()

    def _look(self) -> GenerationResult | None:
        has_record, meta = self._link.presence(self._job_id)
        return answer(self._job_id, has_record=has_record, meta=meta)

    def _listen(self, seconds: float) -> None:
        """Return after ``seconds``, or earlier with a reason to look: the subscription took effect, or a message."""
        if self._subscription is None:
            self._subscription = self._link.subscription()
            self._subscription.subscribe(keys.result(self._job_id))
        self._subscription.get_message(timeout=seconds)

    def _stop_listening(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
