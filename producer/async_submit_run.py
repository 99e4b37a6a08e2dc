"""One ``submit_many`` in an event loop."""

from functools import partial

from producer.aliasing import Found, enqueued_async
from producer.async_link import AsyncLink
from producer.async_polling import AsyncPolling
from producer.async_source import Source
from producer.batch import Batch, BatchChunk
from producer.script import ScriptRun
from producer.submission import Destination


class AsyncSubmitRun:
    """The jobs of one ``submit_many`` call; raises ``redis.RedisError`` when Redis stays away."""

    def __init__(self, link: AsyncLink, destination: Destination, source: Source) -> None:
        self._link = link
        self._destination = destination
        self._source = source
        self._polling = AsyncPolling(link)
        self.batch = Batch()

    async def submit_all(self) -> None:
        """Take and submit every request."""
        try:
            while not self._source.exhausted:
                chunk = self.batch.start_chunk()
                await self._pull(chunk)
                await self._submit(chunk)
        finally:
            await self._source.close()

    async def _pull(self, chunk: BatchChunk) -> None:
        try:
            while not self._source.exhausted and (seconds := chunk.seconds_left):
                for request in await self._source.pull(seconds):
                    chunk.take(request)
        except Exception as error:  # noqa: BLE001 - the caller's own, who gets it when what came before is submitted
            self._source.exhausted = True
            self.batch.source_failed(error)

    async def _submit(self, chunk: BatchChunk) -> None:
        found: Found = []
        if chunk.jobs:
            found = await enqueued_async(chunk.prepared, self._destination, self._enqueue)
        self.batch.settle(chunk, found)

    async def _enqueue(self, run: ScriptRun) -> bytes:
        return await self._polling.outlast(partial(self._link.enqueue, run))
