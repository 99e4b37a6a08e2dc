"""Every Redis command of the asyncio producer. All raise ``redis.RedisError``; callers say what it means."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.client import PubSub
from redis.exceptions import NoScriptError, RedisError

from producer import keys
from producer.connection import refuse_errors, was_cut_off
from producer.redis_client import async_connect, database_of
from producer.registry import declaration
from producer.script import ScriptRun
from producer.stream_entries import MOST_ENTRIES, read_said
from producer.watch import found_results, look_run


class AsyncLink:
    """A pool of connections to the fleet's Redis, for the event loop that uses it first; once closed, for another."""

    def __init__(self, redis_url: str, *, connect_timeout_seconds: float, socket_timeout_seconds: float) -> None:
        self._pool = async_connect(
            redis_url,
            connect_timeout_seconds=connect_timeout_seconds,
            socket_timeout_seconds=socket_timeout_seconds,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self.database = database_of(self._pool)

    @property
    def _redis(self) -> AsyncRedis:
        """The client.

        Raises:
            RuntimeError: this is another event loop than the connections' own. They would fail there, each in its way.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise RuntimeError(
                    "this AsyncProducer belongs to the event loop that used it first: make one in each loop, and "
                    "close it there"
                )
            self._loop = loop
        return self._pool

    async def close(self) -> None:
        """Close the connections; idempotent."""
        await self._redis.aclose()
        self._loop = None

    async def enqueue(self, run: ScriptRun) -> bytes:
        """Run the enqueue script; sent once more when a kept connection was dead."""
        return cast("bytes", await self._run_again(run))

    async def _run_again(self, run: ScriptRun) -> Any:  # noqa: ANN401 - whatever the script replies
        """Run a script that may run twice: sent once more when a kept connection was dead."""
        try:
            return await self._run(run)
        except RedisError as error:
            if not was_cut_off(error):
                raise
        return await self._run(run)

    async def _run(self, run: ScriptRun) -> Any:  # noqa: ANN401 - whatever the script replies
        try:
            return await self._redis.evalsha(run.script.sha, len(run.keys), *run.keys, *run.arguments)
        except NoScriptError:
            return await self._redis.eval(run.script.text, len(run.keys), *run.keys, *run.arguments)

    async def presence(self, job_id: str) -> tuple[bool, bytes | None]:
        """Whether a job has a record, and then its stored result."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.exists(keys.job_record(job_id))
            pipeline.get(keys.result(job_id))
            count, meta = refuse_errors(await pipeline.execute(raise_on_error=False))
        return bool(count), meta

    async def without_record(self, job_ids: Sequence[str]) -> set[str]:
        """Those that have no record (any more)."""
        names = [keys.job_record(job_id) for job_id in job_ids]
        # All of them have one, as a rule: then one number says so.
        if await self._redis.exists(*names) == len(names):
            return set()
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.exists(name)
            counts = refuse_errors(await pipeline.execute(raise_on_error=False))
        return {job_id for job_id, count in zip(job_ids, counts, strict=True) if not count}

    async def record_and_result(self, job_id: str) -> tuple[Mapping[bytes, bytes], bytes | None]:
        """What is known of one job."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(keys.job_record(job_id))
            pipeline.get(keys.result(job_id))
            record, meta = refuse_errors(await pipeline.execute(raise_on_error=False))
        return record, meta

    async def results(self, job_ids: Sequence[str]) -> dict[str, bytes]:
        """The stored results that are there."""
        return found_results(job_ids, await self._run_again(look_run(job_ids)))

    async def said(self, after: Mapping[str, str], block_ms: int | None) -> dict[str, tuple[str, list[bytes]]]:
        """By job the next entries of its stream after the id given, and the last one's id; of those that have some."""
        names: Any = {keys.stream(job_id): last for job_id, last in after.items()}
        replies = cast("Any", await self._redis.xread(names, MOST_ENTRIES, block_ms))
        return {
            keys.job_id_of_stream(name.decode()): read_said([[name, entries]], "")
            for name, entries in (replies.items() if isinstance(replies, dict) else replies)
        }

    def subscription(self) -> PubSub:
        """A connection for published results; the caller closes it."""
        return self._redis.pubsub()

    async def models(self) -> Mapping[bytes, bytes]:
        """The hash of known models."""
        return cast("Mapping[bytes, bytes]", await self._redis.hgetall(keys.MODELS))

    async def declare_model(self, name: str) -> None:
        """Add a model, unless it is known."""
        seconds, microseconds = await self._redis.time()
        await self._redis.hsetnx(keys.MODELS, name, declaration("operator", seconds + microseconds / 1e6))

    async def forget_model(self, name: str) -> bool:
        """Remove a model; whether it was known."""
        return bool(await self._redis.hdel(keys.MODELS, name))
