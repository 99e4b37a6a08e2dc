"""Every Redis command of the synchronous producer. All raise ``redis.RedisError``; callers say what it means."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from redis import ConnectionPool
from redis.client import PubSub
from redis.exceptions import NoScriptError, RedisError, ResponseError

from producer import keys
from producer.connection import refuse_errors, was_cut_off
from producer.redis_client import connect, database_of
from producer.registry import declaration
from producer.script import ScriptRun
from producer.stream_entries import MOST_ENTRIES, read_said
from producer.watch import found_results, look_run


class Exchange:
    """A script run that was sent, and its reply, which is read later: meanwhile the caller may do something else.

    It has a connection of its own until the reply is read or :meth:`abandon` is called.
    """

    def __init__(self, pool: ConnectionPool, run: ScriptRun) -> None:
        self._pool = pool
        # The library's connections carry no types.
        self._connection = cast("Any", pool.get_connection())
        try:
            self._connection.send_packed_command([run.encoded])
        except BaseException:
            self.abandon()
            raise

    def reply(self) -> Any:  # noqa: ANN401 - whatever the script replies
        """What the server answered; an error of the client library where it is one."""
        try:
            reply = self._connection.read_response()
        except ResponseError:
            # The server answered, so the connection is as good as before.
            self._release()
            raise
        except BaseException:
            self.abandon()
            raise
        self._release()
        return reply

    def abandon(self) -> None:
        """Give up the reply, and with it the connection; idempotent."""
        if self._connection is not None:
            self._connection.disconnect()
            self._release()

    def _release(self) -> None:
        self._pool.release(self._connection)
        self._connection = None


class Link:
    """A pool of connections to the fleet's Redis; safe to share between threads."""

    def __init__(self, redis_url: str, *, connect_timeout_seconds: float, socket_timeout_seconds: float) -> None:
        self._redis = connect(
            redis_url,
            connect_timeout_seconds=connect_timeout_seconds,
            socket_timeout_seconds=socket_timeout_seconds,
        )
        self.database = database_of(self._redis)

    def close(self) -> None:
        """Close the connections that are not in use; idempotent."""
        self._redis.close()

    def enqueue(self, run: ScriptRun) -> bytes:
        """Run the enqueue script; sent once more when a kept connection was dead."""
        return cast("bytes", self._run_again(run))

    def begin(self, run: ScriptRun) -> Exchange:
        """Send a run of a script, but do not wait for its reply."""
        return Exchange(self._redis.connection_pool, run)

    def _run_again(self, run: ScriptRun) -> Any:  # noqa: ANN401 - whatever the script replies
        """Run a script that may run twice: sent once more when a kept connection was dead."""
        try:
            return self._run(run)
        except RedisError as error:
            if not was_cut_off(error):
                raise
        return self._run(run)

    def _run(self, run: ScriptRun) -> Any:  # noqa: ANN401 - whatever the script replies
        try:
            return self.begin(run).reply()
        except NoScriptError:
            return self._redis.eval(run.script.text, len(run.keys), *run.keys, *run.arguments)

    def presence(self, job_id: str) -> tuple[bool, bytes | None]:
        """Whether a job has a record, and then its stored result."""
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.exists(keys.job_record(job_id))
            pipeline.get(keys.result(job_id))
            count, meta = refuse_errors(pipeline.execute(raise_on_error=False))
        return bool(count), meta

    def without_record(self, job_ids: Sequence[str]) -> set[str]:
        """Those that have no record (any more)."""
        names = [keys.job_record(job_id) for job_id in job_ids]
        # All of them have one, as a rule: then one number says so.
        if self._redis.exists(*names) == len(names):
            return set()
        with self._redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.exists(name)
            counts = refuse_errors(pipeline.execute(raise_on_error=False))
        return {job_id for job_id, count in zip(job_ids, counts, strict=True) if not count}

    def record_and_result(self, job_id: str) -> tuple[Mapping[bytes, bytes], bytes | None]:
        """What is known of one job."""
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(keys.job_record(job_id))
            pipeline.get(keys.result(job_id))
            record, meta = refuse_errors(pipeline.execute(raise_on_error=False))
        return record, meta

    def results(self, job_ids: Sequence[str]) -> dict[str, bytes]:
        """The stored results that are there."""
        return found_results(job_ids, self._run_again(look_run(job_ids)))

    def said(self, job_id: str, after: str, block_ms: int | None) -> tuple[str, list[bytes]]:
        """The next entries of a job's stream after the id given, waited for; and the last one's id."""
        return read_said(self._redis.xread({keys.stream(job_id): after}, MOST_ENTRIES, block_ms), after)

    def subscription(self) -> PubSub:
        """A connection for published results; the caller closes it."""
        return cast("PubSub", self._redis.pubsub())  # type: ignore[no-untyped-call]  # the library's hints have a gap

    def models(self) -> Mapping[bytes, bytes]:
        """The hash of known models."""
        return cast("Mapping[bytes, bytes]", self._redis.hgetall(keys.MODELS))

    def declare_model(self, name: str) -> None:
        """Add a model, unless it is known."""
        seconds, microseconds = self._redis.time()
        self._redis.hsetnx(keys.MODELS, name, declaration("operator", seconds + microseconds / 1e6))

    def forget_model(self, name: str) -> bool:
        """Remove a model; whether it was known."""
        return bool(self._redis.hdel(keys.MODELS, name))
