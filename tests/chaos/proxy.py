"""A TCP proxy on loopback whose connections can be cut and slowed.

Written here because the package index has none that would do: toxiproxy is a Go program (its Python packages only
steer it), and the proxies in Python are HTTP proxies without faults.
"""

import asyncio
import contextlib
import threading
from typing import Final, Self

CHUNK_BYTES: Final = 65_536
START_TIMEOUT_SECONDS: Final = 10.0


class FaultyProxy:
    """Between one worker and its server. Its loop runs in a thread of its own; every method may be called from any."""

    def __init__(self, upstream_port: int) -> None:
        self.port = 0
        """Known after :meth:`start`."""
        self._upstream_port = upstream_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self._delay_seconds = 0.0

    def start(self) -> Self:
        """Listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(START_TIMEOUT_SECONDS)
        return self

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Reset every connection, and each new one, until :meth:`mend`."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def delay(self, seconds: float) -> None:
        """Hold each piece of data back for so long, in both directions, until :meth:`mend`."""
        self._delay_seconds = seconds

    def mend(self) -> None:
        """Be a good proxy again."""
        self._is_cut = False
        self._delay_seconds = 0.0

    def close(self) -> None:
        """Reset what is open and end the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(START_TIMEOUT_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._cut()
        if self._server is not None:
            self._server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        except OSError:
            writer.transport.abort()  # the server is away: what its client would see of it without a proxy
            return
        ends = {writer, upstream_writer}
        self._writers |= ends
        try:
            await asyncio.gather(self._pump(reader, upstream_writer), self._pump(upstream_reader, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A reset on one side is passed on as one on the other.
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(CHUNK_BYTES):
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
