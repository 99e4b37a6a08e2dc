"""What the processes of a supervisor print, line by line through its own logging: into its stderr, and into its file.

One process then writes the file, however many engines there are, and what a dying worker or a library of C prints is
a line like any other.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import orjson

from producer.logs.lines import finished, printed
from producer.logs.options import LogOptions

LONGEST_LINE_BYTES: Final = 2**20
JOIN_SECONDS: Final = 2.0
"""For what ended processes left in their pipes."""


class Output:
    """Reads a pipe per process, each in a thread of its own."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self._threads: list[threading.Thread] = []
        self._logger = logging.getLogger("fleet.output")

    @contextmanager
    def pipe(self, name: str) -> Iterator[int]:
        """The end to be given to a process as its stdout and stderr; closed here when it has it."""
        reading, writing = os.pipe()
        thread = threading.Thread(target=self._read, args=(reading, name), name=f"output-of-{name}", daemon=True)
        self._threads = [known for known in self._threads if known.is_alive()]
        self._threads.append(thread)
        thread.start()
        try:
            yield writing
        finally:
            os.close(writing)

    def close(self) -> None:
        """When the processes have ended: write what is left of what they said."""
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    def _read(self, reading: int, name: str) -> None:
        with os.fdopen(reading, "rb") as pipe:
            while line := pipe.readline(LONGEST_LINE_BYTES):
                text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
                if text:
                    is_line = not self._is_json or _is_line(text)
                    self._logger.handle(finished(text) if is_line else printed(text, name))


def output_of(options: LogOptions) -> Output | None:
    """None: what processes print can go where this one's output goes, as it is."""
    if not options.is_json and options.log_file is None:
        return None
    return Output(is_json=options.is_json)


def _is_line(text: str) -> bool:
    try:
        return text.startswith("{") and "timestamp" in orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
