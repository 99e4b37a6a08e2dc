"""A line per job, at DEBUG; not between pool and metrics at all where nobody wants it."""

import logging
from dataclasses import dataclass

from workers.observe.records import BatchDrained, JobFinished, Observer

log = logging.getLogger(__name__)


def with_lines(observer: Observer) -> Observer:
    """The same observer, or one that says how each job ended, too."""
    return JobLines(observer) if log.isEnabledFor(logging.DEBUG) else observer


@dataclass(frozen=True, slots=True)
class JobLines:
    """Says what it hands on."""

    observer: Observer

    def batch_drained(self, record: BatchDrained) -> None:
        """Nothing to say."""
        self.observer.batch_drained(record)

    def active_jobs(self, count: int) -> None:
        """Nothing to say."""
        self.observer.active_jobs(count)

    def job_finished(self, record: JobFinished) -> None:
        """Ids and figures; no text of anybody's."""
        log.debug(
            "%s after %.3f s, prompt tokens: %d, generated: %d",
            record.status,
            record.running_seconds,
            record.prompt_tokens,
            record.completion_tokens,
            extra={"action": "job_ended", "job_id": record.job_id, "attempt": record.attempt},
        )
        self.observer.job_finished(record)
