"""One event, one line: a sentence, one fixed ``action`` word, ids as fields; for people, or as JSON."""

import logging
from logging import Formatter, LogRecord
from typing import Final

from producer.logs.covering import covered

IDS: Final = (
    "action",
    "request_id",
    "key_id",
    "tenant",
    "job_id",
    "attempt",
    "event_id",
    "worker_pid",
    "exit_code",
    "gpu",
)
"""Fields of a record that both forms show, in this order."""
MEASURES: Final = ("source", "method", "path", "status", "duration_seconds", "receiver")
"""Fields that the sentence says too, so that JSON alone shows them."""
OURS: Final = ("producer", "workers", "config", "fleet")
"""How the names of our own loggers begin."""
LIBRARY: Final = "library"
"""The action of a line that a library wrote; ``logger`` says which."""
WARNING: Final = "warning"
"""The action of one of Python's own warnings."""
PRINTED: Final = "printed"
"""The action of what was printed past all loggers."""
LINE: Final = "finished_line"
"""The attribute of a record that is a line already, to be written as it is."""


def is_ours(logger: str) -> bool:
    """Whether code of this repository logs under this name."""
    return logger.split(".", 1)[0] in OURS


def action_of(record: LogRecord) -> str:
    """Its fixed word."""
    own = getattr(record, "action", None)
    if isinstance(own, str) and is_ours(record.name):
        return own
    return WARNING if record.name == "py.warnings" else LIBRARY


class ConsoleLines(Formatter):
    """Time, level and sentence, then the fields that the record carries as ``name=value``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: LogRecord) -> str:
        """One line, but for tracebacks."""
        if isinstance(finished := getattr(record, LINE, None), str):
            return finished
        own = IDS if is_ours(record.name) else ()
        fields = [f"{name}={value}" for name in own if (value := getattr(record, name, None)) is not None]
        first, *traceback = super().format(record).split("\n", 1)
        return covered("\n".join([" ".join([first, *fields]), *traceback]))


def finished(text: str) -> LogRecord:
    """A record that is this line."""
    record = logging.makeLogRecord({"name": "fleet.output", "levelno": logging.INFO, "levelname": "INFO"})
    setattr(record, LINE, text)
    return record


def printed(text: str, source: str) -> LogRecord:
    """A record of what this process printed past all loggers."""
    fields = {"name": "fleet.output", "levelno": logging.INFO, "levelname": "INFO", "msg": "%s", "args": (text,)}
    return logging.makeLogRecord(fields | {"action": PRINTED, "source": source})
