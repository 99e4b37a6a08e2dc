"""Hears of cancellations the moment they are announced; the lease keeper finds the ones that it misses."""

import json
import logging
import threading
from collections.abc import Callable
from typing import Any, Final

import redis
from redis.exceptions import RedisError

from producer import keys
from workers.transport.ledger import Held, Ledger

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
RECONNECT_SECONDS: Final = 0.5


class CancelListener:
    """A thread on the queue's channel of cancellations."""

    def __init__(
        self, client: "redis.Redis", names: keys.QueueKeys, ledger: Ledger, on_cancelled: Callable[[Held], None]
    ) -> None:
        self._client = client
        self._channel = names.cancelled_channel
        self._ledger = ledger
        self._on_cancelled = on_cancelled
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cancel-listener", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        is_deaf = False
        while not self._stopping.is_set():
            try:
                subscriber: Any = self._client  # redis-py leaves pubsub() untyped
                with subscriber.pubsub(ignore_subscribe_messages=True) as subscription:
                    subscription.subscribe(self._channel)
                    is_deaf = False
                    while not self._stopping.is_set():
                        message = subscription.get_message(timeout=POLL_SECONDS)
                        if message is not None:
                            self._heard(message["data"])
            except RedisError as error:
                if not is_deaf:  # a server that is away for long is said once
                    log.info("not hearing of cancellations: %s", error, extra={"action": "cancel_channel_lost"})
                is_deaf = True
                self._stopping.wait(RECONNECT_SECONDS)
            except Exception:
                # A listener that ended in silence would leave every cancellation to the keeper.
                log.exception("the cancel listener failed", extra={"action": "cancel_listener_failed"})
                self._stopping.wait(RECONNECT_SECONDS)

    def _heard(self, data: bytes) -> None:
        try:
            announced: Any = json.loads(data)
            job_id, token = announced["job_id"], announced["submission_token"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            log.warning("not an announcement: %r", error, extra={"action": "cancel_unreadable"})
            return
        held = self._ledger.of_job(job_id) if isinstance(job_id, str) else None
        # By the token: a cancel of one submission must not touch a later one with the same id.
        if held is not None and token and held.submission_token == token:
            self._ledger.cancel(held)
            if held.in_pool is not None:
                self._on_cancelled(held)
