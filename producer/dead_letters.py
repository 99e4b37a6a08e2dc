"""Dead letters: messages that left their queue without being answered as they should, kept for an operator.

A worker buries what cannot be parsed, and what had its last delivery (its job is answered ``poisoned``). A letter
stays until somebody replays or purges it.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from producer import keys
from producer.contract import FailureCode, Priority
from producer.errors import NotReplayable, UnknownDeadLetter
from producer.script import Script, ScriptRun
from producer.submission import Destination
from producer.webhook_note import note_in

REPLAY_SCRIPT: Final = Script.named("webhooks", "replay")
CHUNK_LETTERS: Final = 50
"""Most letters that one command reads or removes: each may hold a message of megabytes."""

_PRIORITIES: Final = {step: priority for priority, step in keys.PRIORITY_STEPS.items()}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One delivery that went wrong. Times are seconds since the epoch, by the Redis server's clock."""

    at: float
    """When it ended."""
    claimed_at: float
    worker: str
    """Celery node name."""
    delivery: int
    """1 for the first."""
    event: str
    """What happened, for people."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that is out of its queue, and why."""

    letter_id: str
    """The job's id, where it names one."""
    job_id: str | None
    """None for what could not be read as a job."""
    queue: str
    model: str
    priority: Priority
    """The lane that it came from."""
    code: FailureCode
    reason: str
    buried_at: float
    """Seconds since the epoch, by the Redis server's clock."""
    history: tuple[Attempt, ...]
    """The first attempt first; empty for what was never run."""
    message: bytes
    """The queue's element as it was; it holds the prompt."""
    sha: str
    """Of the letter as Redis keeps it: tells it from a later one with the same id."""


def read_letter(stored: bytes) -> DeadLetter:
    """A letter by the JSON that a worker wrote."""
    fields: dict[str, Any] = orjson.loads(stored)
    encoded = fields.get("message_base64")
    queue = fields["queue"]
    return DeadLetter(
        letter_id=fields["letter_id"],
        job_id=fields["job_id"] or None,
        queue=queue,
        model=keys.QueueKeys.of_queue(queue).model,
        priority=_PRIORITIES[int(fields["priority_step"])],
        code=FailureCode(fields["code"]),
        reason=fields["reason"],
        buried_at=float(fields["buried_at"]),
        history=tuple(_attempt(entry) for entry in fields["history"]),
        message=fields["message"].encode() if encoded is None else base64.b64decode(encoded),
        sha=hashlib.sha1(stored, usedforsecurity=False).hexdigest(),
    )


def found_letter(letter_id: str, stored: bytes | None) -> DeadLetter:
    """The letter that was looked up.

    Raises:
        UnknownDeadLetter: there was none.
    """
    if stored is None:
        raise UnknownDeadLetter(letter_id)
    return read_letter(stored)


def _attempt(entry: dict[str, Any]) -> Attempt:
    return Attempt(
        at=float(entry["at"]),
        claimed_at=float(entry["claimed_at"]),
        worker=entry["worker"],
        delivery=int(entry["delivery"]),
        event=entry["event"],
    )


def prepare_replay(letter: DeadLetter, destination: Destination) -> ScriptRun:
    """The script run that puts the letter's message back into its lane.

    Raises:
        NotReplayable: the letter names no job.
    """
    if letter.job_id is None:
        raise NotReplayable(
            f"dead letter {letter.letter_id!r} names no job ({letter.reason}): replayed, it would only be buried again"
        )
    names = keys.QueueKeys(letter.model)
    script_keys = (
        keys.DEAD_LETTERS,
        keys.DEAD_LETTER_INDEX,
        keys.result(letter.job_id),
        keys.job_record(letter.job_id),
        names.cancels,
        keys.lane(letter.model, letter.priority),
        names.doorbell_of(letter.priority),
    )
    webhook = note_in(letter.message)
    arguments = (letter.letter_id, letter.sha, letter.job_id, letter.message, destination.record_seconds, webhook)
    return ScriptRun(REPLAY_SCRIPT, script_keys, arguments)


def replayed_job(letter: DeadLetter, reply: bytes) -> str | None:
    """What the replay script answered: the id of the job that is queued again; None to read the letter again.

    Raises:
        UnknownDeadLetter: somebody was faster.
    """
    if reply == b"gone":
        raise UnknownDeadLetter(letter.letter_id)
    return letter.job_id if reply == b"replayed" else None


class LetterScan:
    """The bookkeeping of one listing, latest letter first: what to read next, and what was found. No I/O."""

    def __init__(self, limit: int, offset: int, model: str | None) -> None:
        self._limit = limit
        self._model = model
        # Without a filter the offset is a place in the index; with one, letters have to be read to be counted.
        self._position, self._skip = (offset, 0) if model is None else (0, offset)
        self._is_over = limit <= 0
        self.found: list[DeadLetter] = []

    @property
    def next_range(self) -> tuple[int, int] | None:
        """First and last place in the index to read; None when the listing is complete."""
        if self._is_over:
            return None
        wanted = self._limit - len(self.found) if self._model is None else CHUNK_LETTERS
        return self._position, self._position + min(wanted, CHUNK_LETTERS) - 1

    def take(self, stored: Sequence[bytes | None]) -> None:
        """Note what was at that range; None for a letter that was removed meanwhile."""
        self._position += len(stored)
        self._is_over = not stored
        for text in stored:
            letter = None if text is None else read_letter(text)
            if letter is None or self._model not in {None, letter.model}:
                continue
            if self._skip:
                self._skip -= 1
                continue
            self.found.append(letter)
            if len(self.found) == self._limit:
                self._is_over = True
                return
