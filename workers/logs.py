"""Log lines of a worker: one sentence for people, one fixed ``action`` word, ids as fields; never a prompt."""

import logging
from typing import Final

FIELDS: Final = ("action", "job_id", "worker_pid", "exit_code", "gpu")


class FieldFormatter(logging.Formatter):
    """Time, level and sentence, then the fields that the record carries as ``name=value``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """One line, but for tracebacks."""
        fields = [f"{name}={value}" for name in FIELDS if (value := getattr(record, name, None)) is not None]
        first, *traceback = super().format(record).split("\n", 1)
        return "\n".join([" ".join([first, *fields]), *traceback])


def set_up_logging(level: str) -> None:
    """Log to stderr; Celery's task log stays quiet, because it prints arguments and results."""
    handler = logging.StreamHandler()
    handler.setFormatter(FieldFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # These two print arguments and results, which are prompts and answers.
    for name in ("celery.app.trace", "celery.worker.strategy"):
        logging.getLogger(name).setLevel(logging.WARNING)
