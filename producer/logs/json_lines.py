"""Lines of JSON; imported where they are asked for, since a light install lacks the package that writes them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from logging import LogRecord
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from producer.logs.covering import covered
from producer.logs.lines import IDS, LINE, MEASURES, action_of, is_ours


class JsonLines(JsonFormatter):
    """An object on one line; of a record it takes the fields that are known here, and no others.

    Libraries hand whole messages to their loggers as fields: Celery a task's arguments, which are prompts.
    """

    def __init__(self, fixed: Mapping[str, str]) -> None:
        super().__init__()
        self._fixed = dict(fixed)

    def format(self, record: LogRecord) -> str:
        """One line, whatever the record holds."""
        finished = getattr(record, LINE, None)
        return finished if isinstance(finished, str) else super().format(record)

    def add_fields(self, log_data: dict[str, Any], record: LogRecord, message_dict: dict[str, Any]) -> None:
        """What the line says, in a fixed order."""
        log_data["timestamp"] = _moment(record.created)
        log_data["level"], log_data["logger"] = record.levelname, record.name
        log_data["action"] = action_of(record)
        log_data["message"] = covered(record.getMessage())
        log_data["pid"] = record.process
        log_data.update(self._fixed)
        if is_ours(record.name):
            for name in (*IDS[1:], *MEASURES):
                if (value := getattr(record, name, None)) is not None:
                    log_data[name] = covered(value) if isinstance(value, str) else value
        said = [str(message_dict[key]) for key in ("exc_info", "stack_info") if message_dict.get(key)]
        if said:
            log_data["traceback"] = covered("\n".join(said))


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
