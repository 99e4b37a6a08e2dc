"""The Redis server's clock, as seen from here: deadlines are judged by one clock, however wrong a worker's own is."""

import time


class ServerClock:
    """Seconds since the epoch by the server; this machine's own clock until the server was heard."""

    def __init__(self) -> None:
        self._offset_seconds = 0.0

    def heard(self, server_seconds: float) -> None:
        """The server said what time it is."""
        self._offset_seconds = server_seconds - time.time()

    @property
    def offset_seconds(self) -> float:
        """How far the server's clock is ahead of ours."""
        return self._offset_seconds

    def now(self) -> float:
        """Seconds since the epoch by the server's clock."""
        return time.time() + self._offset_seconds
