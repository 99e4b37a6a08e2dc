"""One ``submit_many`` in one thread: the next chunk is made while the server works on the one before."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from redis.exceptions import RedisError

from producer.aliasing import Found, resolved
from producer.batch import Batch, BatchChunk
from producer.link import Exchange, Link
from producer.polling import Polling
from producer.script import ScriptRun
from producer.submission import Destination, Submittable, enqueue_run, read_replies


@dataclass(frozen=True, slots=True)
class Sent:
    """A chunk on its way."""

    chunk: BatchChunk
    run: ScriptRun
    exchange: Exchange | None
    """None when it could not even be sent."""


class SubmitRun:
    """The jobs of one ``submit_many`` call; raises ``redis.RedisError`` when Redis stays away."""

    def __init__(self, link: Link, destination: Destination, requests: Iterable[Submittable]) -> None:
        self._link = link
        self._destination = destination
        self._requests = iter(requests)
        self._exhausted = False
        self._sent: Sent | None = None
        self._polling = Polling(link)
        self.batch = Batch()

    def submit_all(self) -> None:
        """Take and submit every request."""
        try:
            while not self._exhausted:
                chunk = self.batch.start_chunk()
                self._pull(chunk)
                self._settle()
                self._send(chunk)
            self._settle()
        finally:
            if self._sent is not None and self._sent.exchange is not None:
                self._sent.exchange.abandon()

    def _pull(self, chunk: BatchChunk) -> None:
        while not self._exhausted and chunk.seconds_left:
            try:
                chunk.take(next(self._requests))
            except StopIteration:
                self._exhausted = True
            except Exception as error:  # noqa: BLE001 - the caller's own, who gets it when what came before is submitted
                self._exhausted = True
                self.batch.source_failed(error)

    def _send(self, chunk: BatchChunk) -> None:
        run = enqueue_run(chunk.prepared, self._destination)
        try:
            exchange = self._link.begin(run) if chunk.jobs else None
        except RedisError:
            exchange = None
        self._sent = Sent(chunk, run, exchange)

    def _settle(self) -> None:
        """Read what became of the chunk that was sent; it is sent again where that is not known."""
        if self._sent is None:
            return
        sent = self._sent
        found: Found = []
        if jobs := sent.chunk.prepared:
            found = resolved(jobs, read_replies(jobs, self._reply(sent)), self._destination, self._enqueue)
        self.batch.settle(sent.chunk, found)
        self._sent = None

    def _reply(self, sent: Sent) -> bytes:
        if sent.exchange is not None:
            # Whatever went wrong, the same jobs are sent again; what goes wrong then is raised.
            with suppress(RedisError):
                reply: bytes = sent.exchange.reply()
                self._polling.answered()
                return reply
        return self._enqueue(sent.run)

    def _enqueue(self, run: ScriptRun) -> bytes:
        return self._polling.outlast(partial(self._link.enqueue, run))
