"""Which jobs Flower is told of, and what."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import redis

from producer import keys
from workers.exporter import truth
from workers.exporter.truth import SILENCE_SECONDS, Event, RunningJobs, Truth


@dataclass
class Clock:
    """Moved by hand."""

    seconds: float = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.seconds


@dataclass
class Desk:
    """A reconciler's memory and what it has told."""

    client: "redis.Redis"
    clock: Clock = field(default_factory=Clock)
    told: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin."""
        self.jobs = RunningJobs(self.clock)
        self.truth = Truth(self.client, self.jobs, self._tell)

    def _tell(self, events: Sequence[Event]) -> None:
        self.told += [(event.kind, event.job_id) for event in events]

    def hear(self, kind: str, job_id: str, worker: str = "dead@h") -> None:
        """An event."""
        self.jobs.handlers()[kind]({"uuid": job_id, "hostname": worker})

    def end(self, job_id: str, end: str | None = None) -> None:
        """It has a result; its record says how it ended, but of a plain success."""
        self.client.set(keys.result(job_id), "an answer")
        if end is not None:
            self.client.hset(keys.job_record(job_id), "ended", end)


@pytest.fixture
def desk(redis_url: str) -> Iterator[Desk]:
    """With ``alive@h`` present."""
    with redis.Redis.from_url(redis_url) as client:
        client.zadd(keys.WORKERS, {"alive@h": client.time()[0] + 3600, "dead@h": client.time()[0] - 1})
        yield Desk(client)


def test_jobs_of_a_worker_that_is_gone_are_told_as_they_ended(desk: Desk) -> None:
    """Those without a stored result wait again. Once."""
    for name in ("done", "failed", "cancelled", "waiting", "put off", "retried"):
        desk.hear("task-started", name)
    desk.end("done")
    desk.end("put off", "")
    desk.end("retried", "SUCCESS")
    desk.end("failed", "FAILURE")
    desk.end("cancelled", "REVOKED")
    assert desk.truth.look() == 6
    assert sorted(desk.told) == [
        ("task-failed", "failed"),
        ("task-retried", "put off"),
        ("task-retried", "waiting"),
        ("task-revoked", "cancelled"),
        ("task-succeeded", "done"),
        ("task-succeeded", "retried"),
    ]
    assert desk.truth.look() == 0


def test_a_job_that_waits_is_told_to_have_ended_when_it_has(desk: Desk) -> None:
    """Whoever ends it may be no worker, or one that cannot be heard."""
    desk.hear("task-started", "job")
    assert [desk.truth.look(), desk.truth.look()] == [1, 0]
    desk.end("job", "REVOKED")
    assert [desk.truth.look(), desk.truth.look()] == [1, 0]
    assert desk.told == [("task-retried", "job"), ("task-revoked", "job")]


def test_what_could_not_be_told_is_told_later(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may go away between the look and the telling."""

    def cut_off(_events: Sequence[Event]) -> None:
        raise ConnectionError

    desk.hear("task-started", "job")
    monkeypatch.setattr(desk.truth, "_tell", cut_off)
    with pytest.raises(ConnectionError):
        desk.truth.look()
    monkeypatch.undo()
    assert desk.truth.look() == 1


def test_what_was_said_is_not_said_again(desk: Desk) -> None:
    """Ends that were heard, and jobs that another worker has taken meanwhile."""
    for kind in ("task-succeeded", "task-failed", "task-revoked", "task-rejected", "task-retried"):
        desk.hear("task-started", kind)
        desk.hear(kind, kind)
    desk.hear("task-started", "moved")
    desk.hear("task-received", "moved", "alive@h")
    assert (desk.truth.look(), desk.told) == (0, [])


def test_a_living_workers_job_is_looked_up_after_a_long_silence(desk: Desk) -> None:
    """Its end may have been said while nobody could hear it; one that still runs is left alone."""
    for name in ("ended", "runs"):
        desk.hear("task-started", name, "alive@h")
    desk.end("ended")
    desk.clock.seconds = SILENCE_SECONDS
    assert desk.truth.look() == 0
    desk.clock.seconds += 1
    assert desk.truth.look() == 1
    assert desk.told == [("task-succeeded", "ended")]
    desk.end("runs", "FAILURE")
    assert desk.truth.look() == 0, "it was just looked up"
    desk.clock.seconds += SILENCE_SECONDS + 1
    assert desk.truth.look() == 1


def test_memory_is_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs that were heard of last are kept."""
    monkeypatch.setattr(truth, "MOST_JOBS", 2)
    for name in ("first", "second", "third"):
        desk.hear("task-started", name)
    desk.hear("task-started", "second")
    assert list(desk.jobs.doubtful(set())) == ["third", "second"]


def test_more_jobs_than_fit_into_one_round_trip_are_all_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed worker with many."""
    monkeypatch.setattr(truth, "LOOKUP_JOBS", 3)
    for number in range(7):
        desk.hear("task-started", str(number))
    assert desk.truth.look() == 7
