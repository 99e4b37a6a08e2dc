"""The bookkeeping of ``map``: order, room, shared jobs, refusals and lost jobs."""

import json

import pytest

from producer.chunk import Chunk, IndexedJob
from producer.contract import FailureCode, GenerationRequest
from producer.errors import InvalidRequest, QueueFull, UnknownModel
from producer.jobs import Submission
from producer.submission import Refusal, RequestLike
from producer.window import Window
from tests.finishing import generation_result

REQUEST = GenerationRequest(model="m", prompt="x")


def taken(window: Window, request: RequestLike = REQUEST) -> IndexedJob:
    """Take one more request; its job."""
    chunk = Chunk()
    window.take(request, chunk)
    [job] = chunk.jobs
    return job


def submit(window: Window, count: int = 1) -> list[str]:
    """Take and submit so many requests; their job ids."""
    ids = []
    for _ in range(count):
        job = taken(window)
        window.submitted([job], [Submission(job.prepared.job_id, 1.5)])
        ids.append(job.prepared.job_id)
    return ids


def meta(job_id: str) -> bytes:
    """A stored answer."""
    return json.dumps({"status": "SUCCESS", "result": generation_result(job_id).model_dump(mode="json")}).encode()


def handed_over(window: Window) -> list[int]:
    """The positions of what the caller gets now."""
    return [outcome.index for outcome in window.hand_over()]


def test_in_order_an_early_end_waits_for_those_before_it() -> None:
    """And leaves no room meanwhile."""
    window = Window(3, in_order=True)
    first, second, third = submit(window, 3)

    window.seen({third: meta(third)})
    assert (handed_over(window), window.room) == ([], 0)

    window.seen({first: meta(first), second: meta(second)})
    assert (handed_over(window), window.room, window.is_empty) == ([0, 1, 2], 3, True)


def test_out_of_order_an_outcome_goes_out_as_it_comes() -> None:
    """And leaves room at once."""
    window = Window(3, in_order=False)
    _, _, third = submit(window, 3)

    window.seen({third: meta(third)})

    assert (handed_over(window), window.room, window.is_empty) == ([2], 1, False)


def test_requests_that_are_one_job_each_get_its_outcome() -> None:
    """Two requests with one idempotency key."""
    window = Window(5, in_order=True)
    [first] = submit(window)
    job = taken(window)
    window.submitted([job], [Submission(first, 1.5, duplicate=True)])

    assert window.watch.everything() == [[first]]
    window.seen({first: meta(first)})

    assert [(outcome.index, outcome.job_id) for outcome in window.hand_over()] == [(0, first), (1, first)]


@pytest.mark.parametrize("request_", [{"model": "m"}, {"model": "m", "prompt": "x", "temperature": 1}, {}, 7, None])
def test_a_request_that_breaks_the_contract_is_an_outcome(request_: RequestLike) -> None:
    """It takes its place in the order and never becomes a job."""
    window = Window(2, in_order=True)

    chunk = Chunk()
    window.take(request_, chunk)

    assert chunk.jobs == []
    [outcome] = window.hand_over()
    assert (outcome.index, outcome.job_id, outcome.result) == (0, None, None)
    assert outcome.failure is not None
    assert outcome.failure.code is FailureCode.INVALID_REQUEST


@pytest.mark.parametrize(
    ("refusal", "code"),
    [(UnknownModel("m", ["other"]), FailureCode.MODEL_NOT_FOUND), (InvalidRequest("key"), FailureCode.INVALID_REQUEST)],
)
def test_a_job_that_the_script_refuses_is_an_outcome(refusal: Refusal, code: FailureCode) -> None:
    """The map goes on."""
    window = Window(2, in_order=True)
    job = taken(window)

    window.submitted([job], [refusal])

    [outcome] = window.hand_over()
    assert outcome.failure is not None
    assert outcome.failure.code is code


def test_a_job_that_redis_lost_is_an_outcome_not_an_endless_wait() -> None:
    """Neither record nor result; one with a record is still on its way."""
    window = Window(2, in_order=True)
    ids = submit(window, 2)

    window.gone({ids[0]}, {})

    [outcome] = window.hand_over()
    assert (outcome.index, window.watch.everything()) == (0, [[ids[1]]])
    assert outcome.failure is not None
    assert "nothing is known" in outcome.failure.message


def test_a_job_that_found_its_queue_full_is_sent_again_before_later_ones_of_its_model() -> None:
    """It keeps its place in the order and in the window, and others pass it by."""
    window = Window(4, in_order=True)
    first, other = taken(window), taken(window, {"model": "n", "prompt": "x"})
    window.submitted([first, other], [QueueFull("m", 5, 5), Submission(other.prepared.job_id, 1.5)])

    chunk = window.start_chunk()
    window.take(REQUEST, chunk)
    window.take({"model": "n", "prompt": "y"}, chunk)

    assert [job.index for job in chunk.jobs] == [0, 3]
    assert (window.room, handed_over(window)) == (0, [])
    window.submitted(chunk.jobs, [Submission(job.prepared.job_id, 1.5) for job in chunk.jobs])
    assert [job.index for job in window.start_chunk().jobs] == [2]


def test_a_window_over_submitted_jobs_hands_over_each_by_its_place() -> None:
    """One that is named twice ends twice."""
    window = Window.over(["a", "b", "a"], in_order=False)

    window.seen({"b": meta("b")})
    window.gone({"a"}, {})

    assert [(outcome.index, outcome.job_id) for outcome in window.hand_over()] == [(1, "b"), (0, "a"), (2, "a")]
    assert window.is_empty


@pytest.mark.parametrize(("size", "portion"), [(1, 1), (16, 1), (1_600, 100)])
def test_a_full_window_is_refilled_in_portions(size: int, portion: int) -> None:
    """A small one job by job."""
    window = Window(size, in_order=False)
    ids = submit(window, size)
    ended = 0
    while not window.wants_more:
        window.seen({ids[ended]: meta(ids[ended])})
        assert handed_over(window) == [ended]
        ended += 1

    assert ended == portion


def test_a_window_without_room_for_one_job_is_refused() -> None:
    """It would never end."""
    with pytest.raises(InvalidRequest, match="window"):
        Window(0, in_order=True)
