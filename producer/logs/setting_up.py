"""Sets up logging in a process: stderr, a file when asked, and whatever would get past the loggers."""

import logging
import sys
import threading
from logging import Handler, LogRecord
from types import TracebackType

from producer.logs.forms import formatter_of
from producer.logs.handlers import StderrLines, own_file
from producer.logs.lines import is_ours
from producer.logs.options import LogLevel, LogOptions

log = logging.getLogger(__name__)

ARGUMENT_PRINTERS = ("celery.app.trace", "celery.worker.strategy")
"""Below a warning these say arguments and results, which are prompts and answers."""


def set_up_logging(options: LogOptions, process: str, *, file: str | None, **fixed: str) -> None:
    """Log to stderr, and to the file of this kind of process; warnings and uncaught errors too.

    Args:
        options: The settings.
        process: The kind of this process; in each line of JSON.
        file: What stands in the name of the file, where the options ask for one; None: another process writes it.
        fixed: What else is the same in each line of JSON: ``model``, ``worker``.

    Raises:
        InvalidRequest: the file cannot be written, or a package is missing.
    """
    formatter = formatter_of(options, {"process": process} | fixed)
    handlers: list[Handler] = [StderrLines()]
    if file is not None and (own := own_file(options, file)) is not None:
        handlers.append(own)
    for handler in handlers:
        handler.setFormatter(formatter)
        handler.addFilter(is_fit)
    logging.basicConfig(level=options.log_level.value, handlers=handlers, force=True)
    quieten(options.log_level)
    logging.captureWarnings(capture=True)
    sys.excepthook = _on_uncaught
    threading.excepthook = _on_uncaught_in_thread
    sys.unraisablehook = _on_unraisable


def is_fit(record: LogRecord) -> bool:
    """Whether a line may be written: libraries say no more than INFO, because their DEBUG prints whole messages."""
    return record.levelno >= logging.INFO or is_ours(record.name)


def quieten(level: LogLevel) -> None:
    """Hold back what prints arguments."""
    for name in ARGUMENT_PRINTERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.value]))


def speaks_json() -> bool:
    """Whether this process was set up to write JSON."""
    return any(type(handler.formatter).__name__ == "JsonLines" for handler in logging.getLogger().handlers)


def _on_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    log.critical("ended by %s", kind.__name__, exc_info=(kind, error, traceback), extra={"action": "process_crashed"})


def _on_uncaught_in_thread(uncaught: threading.ExceptHookArgs) -> None:
    if issubclass(uncaught.exc_type, SystemExit) or uncaught.exc_value is None:
        return
    log.critical(
        "the thread %s ended by %s",
        uncaught.thread.name if uncaught.thread else "unknown",
        uncaught.exc_type.__name__,
        exc_info=(uncaught.exc_type, uncaught.exc_value, uncaught.exc_traceback),
        extra={"action": "thread_crashed"},
    )


def _on_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    error = unraisable.exc_value
    log.error(
        "%s: %s",
        unraisable.err_msg or "an error that nobody can catch",
        unraisable.exc_type.__name__,
        exc_info=error if error is not None else False,
        extra={"action": "error_ignored"},
    )
