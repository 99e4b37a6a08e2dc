"""Ends jobs as a worker does: results stored by Celery's own Redis backend."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import redis
from celery import Celery
from celery.backends.redis import RedisBackend

from producer import keys
from producer.contract import Choice, GenerationResult, Priority, Timings, Usage


def generation_result(job_id: str, text: str = "an answer", model: str = "m") -> GenerationResult:
    """A result as a worker makes it."""
    return GenerationResult(
        id=job_id,
        model=model,
        choices=(Choice(index=0, text=text, token_count=2, finish_reason="stop"),),
        usage=Usage(prompt_tokens=3, completion_tokens=2),
        timings=Timings(total_seconds=0.5),
        worker="fleet@test",
    )


class Results:
    """Where a worker leaves how its jobs ended."""

    def __init__(self, backend: RedisBackend) -> None:
        self._backend = backend

    def store(self, job_id: str, value: object, state: str) -> None:
        """Store any value under any of Celery's states."""
        self._backend.store_result(job_id, value, state)

    def succeed(self, job_id: str, text: str = "an answer") -> None:
        """Answer the job."""
        self.store(job_id, generation_result(job_id, text).model_dump(mode="json"), "SUCCESS")

    def fail(self, job_id: str, error: Exception) -> None:
        """Fail the job."""
        self.store(job_id, error, "FAILURE")


@contextmanager
def celery_results(redis_url: str) -> Iterator[Results]:
    """Celery's result backend on this Redis."""
    with Celery("results", backend=redis_url, set_as_current=False) as app:
        yield Results(app.backend)
        app.backend.client.connection_pool.disconnect()


class Answerer:
    """Takes jobs out of their lanes as a worker would and answers each with its own prompt, in a thread."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="answerer")
        self.answered = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        lanes = [keys.lane("m", priority) for priority in Priority]
        with redis.Redis.from_url(self._url) as client, celery_results(self._url) as results:
            while not self._stop.is_set():
                try:
                    taken = client.brpop(lanes, timeout=0.1)
                except redis.exceptions.ConnectionError:
                    self._stop.wait(0.05)
                    continue
                if taken is not None:
                    self._answer(results, json.loads(taken[1]))

    def _answer(self, results: Results, message: dict[str, Any]) -> None:
        [[request], _, _] = json.loads(message["body"])
        results.succeed(message["headers"]["id"], text=request["prompt"])
        self.answered += 1
