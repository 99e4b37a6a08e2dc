"""Which jobs a look asks for: the oldest each time, all in turn, and never more in one command than it takes."""

import pytest

from producer import watch
from producer.watch import (
    CROWD_POLL_SECONDS,
    FRONT_JOBS,
    LONGEST_POLL_SECONDS,
    PATIENT_JOBS_PER_END,
    PATIENT_JOBS_PER_SECOND,
    POLL_KEYS,
    SHORTEST_POLL_SECONDS,
    SWEEP_JOBS_PER_SECOND,
    SWEEP_SECONDS,
    PollSchedule,
    Watch,
)


class Clock:
    """A monotonic clock that goes when it is told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The only clock that a watch sees."""
    stopped = Clock()
    monkeypatch.setattr(watch, "monotonic", stopped)
    return stopped


def watching(count: int, *, is_patient: bool = False) -> Watch:
    """So many jobs, by number."""
    jobs = Watch(is_patient=is_patient)
    for number in range(count):
        jobs.add(str(number), number)
    return jobs


def looked_at(jobs: Watch) -> list[int]:
    """The jobs of the next look."""
    return [int(job_id) for some in jobs.next_look() for job_id in some]


def test_many_results_are_asked_for_in_slices() -> None:
    """One command never carries more keys than fit its limit."""
    assert [len(ids) for ids in watching(POLL_KEYS + 1).everything()] == [POLL_KEYS, 1]
    assert watching(0).everything() == []


def test_the_oldest_jobs_are_looked_at_each_time(clock: Clock) -> None:
    """However short the time since the last look."""
    jobs = watching(5_000)

    assert clock.seconds == 100.0
    assert looked_at(jobs) == looked_at(jobs) == list(range(FRONT_JOBS))


@pytest.mark.parametrize("looks", [1, 7, 50])
def test_every_job_is_looked_at_once_in_a_sweep(clock: Clock, looks: int) -> None:
    """In shares by the time that has passed."""
    jobs = watching(5_000)
    seen: set[int] = set()
    most = 0
    # One more: the turn begins anew where the last share was not a whole one.
    for _ in range(looks + 1):
        clock.seconds += SWEEP_SECONDS / looks
        look = looked_at(jobs)
        seen.update(look)
        most = max(most, len(look))

    assert seen == set(range(5_000))
    assert most <= 5_000 / looks + FRONT_JOBS + 1


def test_a_look_that_found_much_is_followed_by_a_wider_one(clock: Clock) -> None:
    """So that a crowd that has ended is there after a few looks."""
    jobs = watching(5_000)
    widths = []
    for _ in range(4):
        found = looked_at(jobs)
        widths.append(len(found))
        for number in found:
            jobs.settle(str(number))

    assert clock.seconds == 100.0
    assert widths == [FRONT_JOBS, 2 * FRONT_JOBS, 4 * FRONT_JOBS, 8 * FRONT_JOBS]


def test_a_settled_job_is_not_looked_at_again(clock: Clock) -> None:
    """Neither at the front nor in turn, and settling it twice answers nobody twice."""
    jobs = watching(3)
    clock.seconds += SWEEP_SECONDS

    assert (jobs.settle("1"), jobs.settle("1")) == ([1], [])
    assert looked_at(jobs) == [0, 2]
    assert len(jobs) == 2


def test_polling_slows_down_in_silence_and_speeds_up_with_news() -> None:
    """Within its two limits."""
    schedule = PollSchedule()
    pauses = [schedule.pause_seconds(progress=False) for _ in range(20)]

    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (SHORTEST_POLL_SECONDS, LONGEST_POLL_SECONDS)
    assert schedule.pause_seconds(progress=True) == SHORTEST_POLL_SECONDS


def test_a_crowd_is_looked_at_in_larger_portions() -> None:
    """The more are waited for, the less often; up to a limit that nobody in a crowd minds."""
    schedule = PollSchedule()
    pauses = [schedule.pause_seconds(progress=True, waiting_jobs=count) for count in (0, 100, 2_000, 4_000, 100_000)]

    assert pauses == [SHORTEST_POLL_SECONDS, SHORTEST_POLL_SECONDS, 0.05, CROWD_POLL_SECONDS, CROWD_POLL_SECONDS]


def test_a_great_crowd_is_swept_more_slowly(clock: Clock) -> None:
    """So many jobs a second, however many there are."""
    jobs = watching(50_000)
    clock.seconds += SWEEP_SECONDS

    assert len(looked_at(jobs)) <= SWEEP_JOBS_PER_SECOND * SWEEP_SECONDS + FRONT_JOBS


def test_where_one_caller_waits_for_thousands_a_sweep_costs_by_what_ends(clock: Clock) -> None:
    """A few are swept as soon as ever; many in a bounded time, and faster while many end."""
    few, many = watching(1_000, is_patient=True), watching(50_000, is_patient=True)
    clock.seconds += SWEEP_SECONDS
    assert len(looked_at(few)) == 1_000
    assert len(looked_at(many)) == round(PATIENT_JOBS_PER_SECOND * SWEEP_SECONDS)

    for number in range(1_000):
        many.settle(str(number))
    clock.seconds += SWEEP_SECONDS
    swept = len(looked_at(many))
    assert swept <= PATIENT_JOBS_PER_SECOND * SWEEP_SECONDS + PATIENT_JOBS_PER_END * 1_000
    assert swept > 2 * PATIENT_JOBS_PER_SECOND * SWEEP_SECONDS

    seen: set[int] = set()
    for _ in range(80):
        clock.seconds += SWEEP_SECONDS
        seen.update(looked_at(many))
    assert seen == set(range(1_000, 50_000))


def test_lost_jobs_are_looked_for_now_and_then(clock: Clock) -> None:
    """At once, where jobs are waited for that somebody else may have submitted."""
    assert PollSchedule(presence_seconds=0).presence_is_due()
    schedule = PollSchedule()
    assert not schedule.presence_is_due()
    clock.seconds += watch.PRESENCE_SECONDS
    assert (schedule.presence_is_due(), schedule.presence_is_due()) == (True, False)
