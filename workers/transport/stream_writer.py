"""Tells what streamed jobs say: many jobs' news in one script, a few milliseconds apart, from a thread of its own."""

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from itertools import islice
from typing import Any, Final

import redis
from redis.exceptions import RedisError

from producer import keys
from producer.stream_entries import FIRST_ID, RESTARTED, Piece, Said, encode, read_said
from workers.paced import Paced

log = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 0.018
"""Between two writes, which are 20 ms apart with the writing: so old at most is what a reader gets, and the time of
its own reading."""
MOST_ENTRIES: Final = 65_536
"""Of one stream; at 50 a second, twenty minutes of one answer. What is cut off readers have from the result."""
RUN_ENTRIES: Final = 256
"""In one script, so that none keeps the server long."""
RETRY_SECONDS: Final = 0.2
STOP_SECONDS: Final = 2.0


@dataclass(slots=True)
class News:
    """What one delivery says and nobody has written yet, in order."""

    job_id: str
    is_restart: bool = False
    """Before all else: what was told is void."""
    prompt_tokens: int = 0
    pieces: dict[int, Piece] = field(default_factory=dict)
    """By index of the choice."""

    def add(self, piece: Piece) -> None:
        """Put it behind what is there of its choice."""
        before = self.pieces.get(piece.index)
        self.pieces[piece.index] = piece if before is None else _joined(before, piece)

    def entries(self) -> Iterator[bytes]:
        """What is to be written."""
        if self.is_restart:
            yield RESTARTED
        if self.pieces:
            yield encode(list(self.pieces.values()), self.prompt_tokens)


def _joined(before: Piece, after: Piece) -> Piece:
    both = None if after.logprobs is None else (before.logprobs or ()) + after.logprobs
    return replace(
        before,
        text=before.text + after.text,
        token_ids=before.token_ids + after.token_ids,
        finish_reason=after.finish_reason,
        tool_calls=after.tool_calls,
        logprobs=both or before.logprobs,
    )


class StreamWriter:
    """Tells for all deliveries of one process; see :class:`workers.inference.telling.Teller`."""

    def __init__(self, client: "redis.Redis", model: str, lifetime_seconds: int) -> None:
        self._client = client
        self._leased = keys.QueueKeys(model).leased
        self._lifetime_seconds = lifetime_seconds
        self._script = client.register_script(
            files("workers.transport").joinpath("stream.lua").read_text(encoding="utf-8")
        )
        self._lock = threading.Lock()
        self._news: dict[str, News] = {}
        """By tag."""
        self._is_away = False
        """The last write failed, and it was logged."""
        self._paced = Paced("stream-writer", PAUSE_SECONDS, self._write, acts_first=True)

    def start(self) -> None:
        """Start the thread."""
        self._paced.start()

    def stop(self) -> None:
        """Write what is there and end it."""
        self._paced.stop(STOP_SECONDS)

    def teller(self, job_id: str, tag: str) -> "DeliveryTeller":
        """Of the delivery under this tag."""
        return DeliveryTeller(self, job_id, tag)

    def add(self, tag: str, job_id: str, pieces: Sequence[Piece], prompt_tokens: int) -> None:
        """Write these soon; returns at once."""
        with self._lock:
            news = self._news.setdefault(tag, News(job_id))
            news.prompt_tokens = prompt_tokens
            for piece in pieces:
                news.add(piece)
        self._paced.notify()

    def restart(self, tag: str, job_id: str) -> None:
        """Write soon that what was told before is void; returns at once."""
        with self._lock:
            self._news[tag] = News(job_id, is_restart=True)
        self._paced.notify()

    def forget(self, tag: str) -> None:
        """Nothing more is to be written of this delivery."""
        with self._lock:
            self._news.pop(tag, None)

    def read(self, job_id: str) -> Said:
        """What was told of a job so far.

        Raises:
            RedisError: it is not known.
        """
        said = Said()
        found: Any = self._client.xrange(keys.stream(job_id))
        for entry in read_said([(None, found)], FIRST_ID)[1]:
            said.take(entry)
        return said

    def _write(self) -> None:
        with self._lock:
            news, self._news = self._news, {}
        unwritten = ((tag, one) for tag, one in news.items())
        while some := dict(islice(unwritten, RUN_ENTRIES)):
            try:
                self._run(some)
            except RedisError as error:
                if not self._is_away:
                    log.warning("%d streams wait: %s", len(some), error, extra={"action": "streams_delayed"})
                self._is_away = True
                self._put_back(some | dict(unwritten))
                return
            self._is_away = False

    def _run(self, news: dict[str, News]) -> None:
        pairs = [(tag, one.job_id, entry) for tag, one in news.items() for entry in one.entries()]
        if pairs:
            arguments: list[str | bytes | int] = [MOST_ENTRIES, self._lifetime_seconds]
            for tag, _, entry in pairs:
                arguments += [tag, entry]
            self._script([self._leased, *(keys.stream(job_id) for _, job_id, _ in pairs)], arguments)

    def _put_back(self, news: dict[str, News]) -> None:
        with self._lock:
            for tag, earlier in news.items():
                later = self._news.get(tag)
                if later is None or later.is_restart:
                    self._news.setdefault(tag, earlier)
                    continue
                for piece in later.pieces.values():
                    earlier.add(piece)
                self._news[tag] = earlier
        self._paced.notify()


@dataclass(frozen=True, slots=True)
class DeliveryTeller:
    """Tells readers of one delivery's job."""

    writer: StreamWriter
    job_id: str
    tag: str

    async def said(self) -> Said:
        """What earlier attempts have told; an outage is waited for, since two attempts must not be told as one."""
        is_logged = False
        while True:
            try:
                return await asyncio.to_thread(self.writer.read, self.job_id)
            except RedisError as error:
                if not is_logged:
                    log.warning("what was told is not known yet: %s", error, extra={"action": "stream_unread"})
                is_logged = True
                await asyncio.sleep(RETRY_SECONDS)

    def tell(self, pieces: Sequence[Piece], prompt_tokens: int) -> None:
        """Tell these of a prompt of that size; returns at once."""
        self.writer.add(self.tag, self.job_id, pieces, prompt_tokens)

    def restart(self) -> None:
        """What was told before is void; returns at once."""
        self.writer.restart(self.tag, self.job_id)

    def close(self) -> None:
        """The attempt is over; what was not told yet is in its result, if it has one."""
        self.writer.forget(self.tag)
