"""Celery's consumer, except that a message which cannot be understood is answered instead of only logged.

It also lets a server that does not write for a while have that while.

Stock Celery acknowledges an undecodable body without a result and logs the body; a body of the wrong shape ends the
worker. Here both, and an unknown task, become a FAILURE for the caller, without the body in the log.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any, Final

import orjson
from celery import signals
from celery.app.task import Context
from celery.worker.consumer import Consumer
from celery.worker.request import Request

from producer.contract import FailureCode
from producer.errors import InferenceFailed
from workers.paced import Paced
from workers.transport.broker_connection import WritesRefused

log = logging.getLogger(__name__)

REFUSED_PAUSE_SECONDS: Final = 1.0
"""Before a server that does not write now is asked again."""
EVENTS_PAUSE_SECONDS: Final = 0.05
"""Monitors hear of a job this late at most, of many jobs in one message."""
EVENTS_STOP_SECONDS: Final = 5.0


class DecodedRequest(Request):
    """A request that hands the pool the body it has decoded already, so that nobody decodes it again."""

    def __init__(self, message: Any, **options: Any) -> None:  # noqa: ANN401 - Celery's
        super().__init__(message, **options)
        if not self._decoded:
            self._body = message.payload
            self._content_type = self._content_encoding = None


class FleetConsumer(Consumer):
    """Named by the ``worker_consumer`` setting."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - Celery's
        super().__init__(*args, **options)
        self._telling = Paced("events", EVENTS_PAUSE_SECONDS, self._tell)

    def start(self) -> None:
        """Until the worker stops."""
        self._telling.start()
        super().start()

    def shutdown(self) -> None:
        """The last thing, when the pool has stopped: what its jobs left to tell is told."""
        self._telling.stop(EVENTS_STOP_SECONDS)
        super().shutdown()

    def on_send_event_buffered(self) -> None:
        """A task event waits; any thread. The main loop has better to do than publish it."""
        self._telling.notify()

    def _tell(self) -> None:
        dispatcher = self.event_dispatcher
        if dispatcher is not None:
            try:
                dispatcher.flush()
            except Exception:
                # The dispatcher keeps what it cannot send; this is something else, and the next events want telling.
                log.exception("events not sent", extra={"action": "events_lost"})

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """The connection broke; where the server refuses to write, the next one would come too soon."""
        super().on_connection_error_after_connected(exc)
        if isinstance(exc, WritesRefused):
            log.warning("the server does not write now: %s", exc, extra={"action": "writes_refused"})
            time.sleep(REFUSED_PAUSE_SECONDS)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:  # noqa: ANN401 - Celery's
        """The stock handler, with what it does not expect of a message's shape turned into an answer."""
        handle = super().create_task_handler(*args, **kwargs)

        def handle_or_answer(message: Any) -> Any:  # noqa: ANN401 - kombu's
            try:
                decode_ahead(message)
                return handle(message)
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                return self.on_invalid_task(None, message, error)

        return handle_or_answer

    def on_decode_error(self, message: Any, exc: Exception) -> None:  # noqa: ANN401 - Celery's signature
        """The body is not what its content type says."""
        self._answer(message, f"the message body cannot be decoded: {exc}")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ANN401, ARG002 - Celery's
        """The body decodes, but is not (args, kwargs, embed), or its content type is not accepted."""
        self._answer(message, f"the message is not a Celery task message: {exc}")
        signals.task_rejected.send(sender=self, message=message, exc=exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:  # noqa: ANN401, ARG002 - Celery's
        """It names no task; stock Celery would log the body, and forget the caller."""
        self._answer(message, "the message names no task; generation is fleet.generate")
        signals.task_rejected.send(sender=self, message=message, exc=None)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ANN401, ARG002 - Celery's
        """No such task here."""
        name, job_id = message.headers.get("task"), message.headers.get("id")
        self._answer(message, f"no task {name!r} on this worker; generation is fleet.generate")
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=name, id=job_id)

    def _answer(self, message: Any, text: str) -> None:  # noqa: ANN401 - kombu's
        headers = message.headers if isinstance(message.headers, dict) else {}
        job_id = headers.get("id")
        failure = InferenceFailed(FailureCode.INVALID_REQUEST, text)
        log.error("%s", text, extra={"action": "message_refused", "job_id": job_id})
        if isinstance(job_id, str) and job_id:
            # The result first: were the worker killed in between, the message would come again, not vanish.
            self.app.backend.mark_as_failure(job_id, failure, request=_context(headers, message))
            if self.event_dispatcher:
                self.event_dispatcher.send("task-failed", uuid=job_id, exception=repr(failure), traceback=None)
        message.reject_log_error(log, self.connection_errors)


def decode_ahead(message: Any) -> None:  # noqa: ANN401 - kombu's
    """Decode a JSON body here, faster than kombu would when Celery asks; what is not plain JSON is left to kombu."""
    body = message.body
    is_plain = message.content_type == "application/json" and isinstance(body, str | bytes)
    # Kombu's own JSON makes objects of what has this key: moments, decimals and the like.
    if is_plain and (b"__type__" if isinstance(body, bytes) else "__type__") not in body:
        with contextlib.suppress(orjson.JSONDecodeError):  # kombu takes more: NaN, lone surrogates
            message._decoded_cache = orjson.loads(body)  # noqa: SLF001 - see tests/contracts/test_kombu_internals.py


def _context(headers: dict[str, Any], message: Any) -> Context:  # noqa: ANN401 - kombu's
    return Context(
        {
            "id": headers.get("id"),
            "task": headers.get("task"),
            "root_id": headers.get("root_id"),
            "correlation_id": message.properties.get("correlation_id"),
            "delivery_info": message.delivery_info or {},
        }
    )
