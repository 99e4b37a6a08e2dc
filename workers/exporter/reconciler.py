"""Hears Celery's events and looks for jobs that ended in silence, on two threads, until it is stopped."""

import logging
import threading
from collections.abc import Sequence
from typing import Final

import redis
from celery import Celery
from celery.events.receiver import EventReceiver
from kombu.exceptions import OperationalError

from workers.exporter.truth import Event, RunningJobs, Truth
from workers.transport.broker_address import broker_settings

log = logging.getLogger(__name__)

NODE: Final = "exporter@fleet"
"""Who tells; Flower lists it beside the workers."""
ROUTING_KEY: Final = "task.multi"
"""Of workers' events, which come in groups. That of ``task-sent`` is another: producers make those events only while
somebody hears them, and this is nobody who needs them."""
SENTINEL_TIMEOUT_SECONDS: Final = 2.0
PAUSE_SECONDS: Final = 1.0
"""Before another attempt at a server that is away."""
STOP_SECONDS: Final = 3.0


UNREACHED: Final = (OperationalError, OSError)
"""A server that could not be connected to; Celery's connection names the errors of one that was lost."""


class Reconciler:
    """Keeps Flower true."""

    def __init__(self, redis_url: str, client: "redis.Redis", every_seconds: float) -> None:
        self._app = Celery("fleet", set_as_current=False)
        self._app.conf.update(accept_content=["json"], **broker_settings(redis_url, {}, SENTINEL_TIMEOUT_SECONDS))
        self._every_seconds = every_seconds
        self._jobs = RunningJobs()
        self._truth = Truth(client, self._jobs, self._tell)
        self._is_stopping = threading.Event()
        self._receiver: EventReceiver | None = None
        self._threads = [
            threading.Thread(target=self._hear, name="hears-events", daemon=True),
            threading.Thread(target=self._look, name="tells-truth", daemon=True),
        ]

    def start(self) -> None:
        """Begin; a server that is not there yet is waited for."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both threads."""
        self._is_stopping.set()
        if self._receiver is not None:
            self._receiver.should_stop = True
        for thread in self._threads:
            thread.join(STOP_SECONDS)

    def _hear(self) -> None:
        while not self._is_stopping.is_set():
            with self._app.connection_for_read() as connection:
                troubles = (*connection.connection_errors, *connection.channel_errors, *UNREACHED)
                try:
                    receiver = self._app.events.Receiver(connection, self._jobs.handlers(), routing_key=ROUTING_KEY)
                    self._receiver = receiver
                    receiver.capture(limit=None, timeout=None, wakeup=False)
                except troubles as error:
                    log.warning("hears no events: %s", error, extra={"action": "exporter_deaf"})
                    self._is_stopping.wait(PAUSE_SECONDS)

    def _look(self) -> None:
        while not self._is_stopping.wait(self._every_seconds):
            try:
                told = self._truth.look()
            except (
                redis.exceptions.RedisError,
                OperationalError,
                *self._app.connection_for_write().connection_errors,
            ) as error:
                log.warning("cannot look for lost jobs: %s", error, extra={"action": "exporter_blind"})
                continue
            if told:
                log.info("told Flower of %d jobs", told, extra={"action": "jobs_reconciled"})

    def _tell(self, told: Sequence[Event]) -> None:
        with self._app.connection_for_write() as connection, self._app.events.Dispatcher(connection, NODE) as events:
            for event in told:
                events.send(event.kind, uuid=event.job_id, **event.fields)
