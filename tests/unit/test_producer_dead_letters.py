"""Dead letters as the producer reads them, and how a listing goes through them."""

import base64
import json

import pytest

from producer import Attempt, FailureCode, NotReplayable, Priority, UnknownDeadLetter
from producer.dead_letters import (
    CHUNK_LETTERS,
    DeadLetter,
    LetterScan,
    found_letter,
    prepare_replay,
    read_letter,
    replayed_job,
)
from producer.submission import Destination

DESTINATION = Destination(database=0, record_seconds=100)


def letter(letter_id: str = "j", **fields: object) -> bytes:
    """A letter as a worker writes it."""
    written = {
        "letter_id": letter_id,
        "job_id": letter_id,
        "queue": "fleet.m",
        "priority_step": "3",
        "code": "poisoned",
        "reason": "it kills engines",
        "buried_at": 1000.5,
        "history": [],
        "message": '{"body": "ü"}',
    }
    return json.dumps(written | fields).encode()


def scanned(stored: list[bytes | None], scan: LetterScan) -> tuple[list[str], list[tuple[int, int]]]:
    """What a listing finds, and which places of the index it read."""
    places = []
    while (place := scan.next_range) is not None:
        places.append(place)
        scan.take(stored[place[0] : place[1] + 1])
    return [found.letter_id for found in scan.found], places


def test_a_letter_says_what_was_buried_where_from_why_and_after_which_attempts() -> None:
    """Numbers that Lua wrote as text are numbers again."""
    attempt = {"at": "20.500000", "claimed_at": "10.250000", "worker": "w@h", "delivery": 1, "event": "died"}
    stored = letter(history=[attempt])
    read = read_letter(stored)

    assert read == DeadLetter(
        letter_id="j",
        job_id="j",
        queue="fleet.m",
        model="m",
        priority=Priority.NORMAL,
        code=FailureCode.POISONED,
        reason="it kills engines",
        buried_at=1000.5,
        history=(Attempt(at=20.5, claimed_at=10.25, worker="w@h", delivery=1, event="died"),),
        message='{"body": "ü"}'.encode(),
        sha=read.sha,
    )
    assert read.sha != read_letter(letter()).sha


def test_a_message_that_is_no_text_comes_back_byte_for_byte() -> None:
    """It travels as base64."""
    stored = json.loads(letter(message_base64=base64.b64encode(b"\xff\x00").decode()))
    del stored["message"]

    assert read_letter(json.dumps(stored).encode()).message == b"\xff\x00"


@pytest.mark.parametrize("job_id", [None, ""])
def test_a_letter_without_a_job_is_not_replayed(job_id: str | None) -> None:
    """It would be buried again."""
    read = read_letter(letter("tag-1", job_id=job_id, code="invalid_request", reason="not JSON"))

    assert read.job_id is None
    with pytest.raises(NotReplayable, match=r"'tag-1' names no job .not JSON."):
        prepare_replay(read, DESTINATION)


@pytest.mark.parametrize(("priority", "step"), list(zip(Priority, (0, 3, 6, 9), strict=True)))
def test_a_replay_goes_into_the_lane_that_the_message_came_from(priority: Priority, step: int) -> None:
    """Of the same model and priority."""
    run = prepare_replay(read_letter(letter(queue="fleet.a:b", priority_step=str(step))), DESTINATION)

    lane = "fleet.a:b" if step == 0 else f"fleet.a:b\x06\x16{step}"
    assert list(run.keys) == [
        "fleet:dead",
        "fleet:dead:index",
        "celery-task-meta-j",
        "fleet:job:j",
        "fleet:cancels:a:b",
        lane,
        "fleet:doorbell-urgent:a:b" if priority is Priority.INTERACTIVE else "fleet:doorbell:a:b",
    ]
    assert read_letter(letter(priority_step=step)).priority is priority


def test_a_replay_that_came_second_is_an_error_and_a_changed_letter_is_read_again() -> None:
    """Two operators at once."""
    read = read_letter(letter())

    assert replayed_job(read, b"replayed") == "j"
    assert replayed_job(read, b"changed") is None
    with pytest.raises(UnknownDeadLetter, match="no dead letter 'j'"):
        replayed_job(read, b"gone")
    with pytest.raises(UnknownDeadLetter, match="no dead letter 'x'"):
        found_letter("x", None)


def test_without_a_filter_exactly_the_asked_part_of_the_index_is_read() -> None:
    """In chunks."""
    stored: list[bytes | None] = [letter(str(number)) for number in range(200)]

    found, places = scanned(stored, LetterScan(limit=CHUNK_LETTERS + 10, offset=20, model=None))

    assert found == [str(number) for number in range(20, CHUNK_LETTERS + 30)]
    assert places == [(20, CHUNK_LETTERS + 19), (CHUNK_LETTERS + 20, CHUNK_LETTERS + 29)]


def test_with_a_filter_limit_and_offset_count_what_passes_it() -> None:
    """However many others lie between."""
    stored: list[bytes | None] = [letter(str(number), queue=f"fleet.{'ab'[number % 2]}") for number in range(200)]

    found, _ = scanned(stored, LetterScan(limit=60, offset=5, model="b"))

    assert found == [str(number) for number in range(11, 131, 2)]


@pytest.mark.parametrize("model", [None, "m"])
def test_a_listing_ends_where_the_letters_end_and_leaves_out_what_was_removed_meanwhile(model: str | None) -> None:
    """Fewer than asked for, or none."""
    stored = [letter("0"), None, letter("2")]

    assert scanned(stored, LetterScan(limit=100, offset=0, model=model))[0] == ["0", "2"]
    assert scanned([], LetterScan(limit=100, offset=0, model=model))[0] == []
    assert scanned(stored, LetterScan(limit=0, offset=0, model=model)) == ([], [])
