"""What a worker process does at this moment, in plain numbers: the metrics' counters are Prometheus' alone."""

from collections import deque
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, NamedTuple

from workers.observe.records import JobFinished

WINDOW_SECONDS: Final = 60.0


class _Seen(NamedTuple):
    at: float
    jobs: int
    tokens: int


@dataclass
class Activity:
    """Counts since the start; any thread may read."""

    running_jobs: int = 0
    finished_jobs: int = 0
    generation_tokens: int = 0
    """Of answered jobs."""
    _seen: deque[_Seen] = field(default_factory=lambda: deque([_Seen(monotonic(), 0, 0)]))

    def job_finished(self, record: JobFinished) -> None:
        """A job has its outcome."""
        self.finished_jobs += 1
        self.generation_tokens += record.completion_tokens

    def rates(self, generation_tokens: int | None = None) -> tuple[float, float]:
        """Jobs and generated tokens per second since a minute ago, or since the start.

        An engine that counts tokens knows more than finished jobs do: ``generation_tokens``, since its start. One
        thread may ask, every few seconds.
        """
        tokens = self.generation_tokens if generation_tokens is None else generation_tokens
        seen = _Seen(monotonic(), self.finished_jobs, tokens)
        self._seen.append(seen)
        while len(self._seen) > 2 and self._seen[1].at <= seen.at - WINDOW_SECONDS:  # noqa: PLR2004 - the two ends
            self._seen.popleft()
        first = self._seen[0]
        elapsed_seconds = seen.at - first.at
        if elapsed_seconds <= 0:
            return 0.0, 0.0
        return (seen.jobs - first.jobs) / elapsed_seconds, (seen.tokens - first.tokens) / elapsed_seconds
