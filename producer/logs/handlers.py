"""Where lines go: the process' stderr, and a file that is rotated by size and written by nobody else."""

import fcntl
import logging
import os
import sys
from io import TextIOWrapper
from logging import Handler, LogRecord, StreamHandler
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from producer.errors import InvalidRequest
from producer.logs.options import LogOptions

log = logging.getLogger(__name__)

LOST: Final = "line_lost"


class StderrLines(StreamHandler[TextIOWrapper]):
    """Writes to the process' stderr itself: what vLLM puts around ``sys.stderr`` may add a prefix to each line."""

    def __init__(self) -> None:
        super().__init__(os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False))

    def handleError(self, record: LogRecord) -> None:  # noqa: N802 - logging's
        """See :func:`tell_of_lost`."""
        tell_of_lost(self, record)


class OwnFile(RotatingFileHandler):
    """Holds a lock on the file that it writes: two processes would rotate it away from under each other."""

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.close()
            raise
        return stream

    def handleError(self, record: LogRecord) -> None:  # noqa: N802 - logging's
        """See :func:`tell_of_lost`."""
        tell_of_lost(self, record)


def tell_of_lost(handler: Handler, record: LogRecord) -> None:
    """A line could not be made or written: say so, unless that fails too. Logging's own report prints arguments."""
    if getattr(record, "action", None) == LOST:
        return
    error = sys.exc_info()[0]
    said = (record.name, error.__name__ if error else "unknown")
    sentence = "a line of %s could not be written: %s"
    handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, sentence, said, None, extra={"action": LOST}))


def own_file(options: LogOptions, kind: str) -> OwnFile | None:
    """The file of this kind of process, opened; None: none is asked for.

    Raises:
        InvalidRequest: it cannot be written, or another process writes it.
    """
    if options.log_file is None:
        return None
    path = path_of(options.log_file, kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return OwnFile(
            path, maxBytes=options.log_max_bytes, backupCount=options.log_backups, encoding="utf-8", errors="replace"
        )
    except BlockingIOError as error:
        raise InvalidRequest(f"log.file: another process writes {path}: name another file for one of them") from error
    except OSError as error:
        raise InvalidRequest(f"log.file: {path} cannot be written: {error.strerror or error}") from error


def path_of(file: Path, kind: str) -> Path:
    """Where a kind of process writes: ``fleet.log`` is ``fleet-worker.log`` for a worker."""
    return file.with_name(f"{file.stem}-{kind}{file.suffix}")
