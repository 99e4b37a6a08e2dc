"""Watches every result that is published, from before the first job until after the last, from outside the fleet."""

import logging
import threading
import time
from collections.abc import Iterator
from typing import Final, cast

import orjson
import redis
from redis.client import PubSub

from producer import keys
from tests.chaos.evidence import Terminal

log = logging.getLogger(__name__)

RESULTS: Final = keys.result("*")
POLL_SECONDS: Final = 0.1
SCAN_COUNT: Final = 1000


class ResultObserver:
    """Collects terminal results per job; after an outage it first reads what was stored meanwhile."""

    def __init__(self, redis_url: str) -> None:
        self._client = redis.Redis.from_url(redis_url, socket_timeout=10.0)
        self._stopping = threading.Event()
        self._listening = threading.Event()
        self._seen: dict[str, list[Terminal]] = {}
        self._running_on: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="result-observer", daemon=True)

    def start(self) -> None:
        """Return when nothing that is published from now on is missed."""
        self._thread.start()
        if not self._listening.wait(10.0):
            raise TimeoutError("the observer could not subscribe")

    def stop(self) -> None:
        """End it; what was seen stays."""
        self._stopping.set()
        self._thread.join()
        self._client.close()

    @property
    def seen(self) -> dict[str, list[Terminal]]:
        """Job id to its different terminal results."""
        return {job_id: list(results) for job_id, results in self._seen.copy().items()}

    @property
    def answered(self) -> int:
        """Jobs that have ended."""
        return len(self._seen)

    def running_on(self) -> dict[str, list[str]]:
        """Celery node to the jobs that it said it has started (``task_track_started``) and not ended."""
        nodes: dict[str, list[str]] = {}
        for job_id, node in self._running_on.copy().items():
            nodes.setdefault(node, []).append(job_id)
        return nodes

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._subscription() as subscription:
                    subscription.psubscribe(RESULTS)
                    self._listening.set()
                    self._read_stored()
                    self._listen(subscription)
            except redis.exceptions.RedisError as error:
                log.debug("the observer lost the server: %s", error)
                self._stopping.wait(POLL_SECONDS)

    def _subscription(self) -> PubSub:
        return cast("PubSub", self._client.pubsub())  # type: ignore[no-untyped-call]  # the library's hints have a gap

    def _listen(self, subscription: PubSub) -> None:
        while not self._stopping.is_set():
            message = subscription.get_message(ignore_subscribe_messages=True, timeout=POLL_SECONDS)
            if message is not None:
                self._note(message["channel"], message["data"])

    def _read_stored(self) -> None:
        for name, payload in stored_results(self._client):
            self._note(name, payload)

    def _note(self, name: bytes, payload: bytes) -> None:
        job_id = keys.job_id_of_result(name.decode())
        terminal = Terminal.read(payload, time.time())
        if terminal is None:
            self._note_start(job_id, payload)
            return
        self._running_on.pop(job_id, None)
        results = self._seen.setdefault(job_id, [])
        if all(each.digest != terminal.digest for each in results):
            results.append(terminal)

    def _note_start(self, job_id: str, payload: bytes) -> None:
        started = orjson.loads(payload)["result"]
        if isinstance(started, dict) and "hostname" in started:
            self._running_on[job_id] = started["hostname"]


def stored_results(client: "redis.Redis") -> Iterator[tuple[bytes, bytes]]:
    """Name and JSON of every stored result."""
    cursor = 0
    while True:
        cursor, names = cast("tuple[int, list[bytes]]", client.scan(cursor, match=RESULTS, count=SCAN_COUNT))
        if names:
            payloads = cast("list[bytes | None]", client.mget(names))
            yield from ((name, payload) for name, payload in zip(names, payloads, strict=True) if payload)
        if cursor == 0:
            return


def terminal_results(client: "redis.Redis") -> dict[str, Terminal]:
    """Job id to the terminal result that is stored now."""
    now = time.time()
    read = ((keys.job_id_of_result(name.decode()), Terminal.read(text, now)) for name, text in stored_results(client))
    return {job_id: terminal for job_id, terminal in read if terminal is not None}
