"""The commands about jobs in the fleet, queue limits and dead letters; otherwise as :mod:`producer.async_link`."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from producer import keys
from producer.async_link import AsyncLink
from producer.connection import refuse_errors
from producer.conversation_entries import TOKENS
from producer.dead_letters import CHUNK_LETTERS
from producer.job_list import HEAD_BYTES, LOOKED_AT_TOGETHER
from producer.queue_counts import count_letters
from producer.registry import encoded_limit
from producer.script import ScriptRun


class AsyncControlLink(AsyncLink):
    """What :class:`~producer.async_link.AsyncLink` is, with these commands added."""

    async def drained(self) -> tuple[float, dict[str, list[bytes]]]:
        """The server's time in seconds since the epoch, and what is counted of each known model's finished jobs."""
        names = sorted(name.decode() for name in await self.models())
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.time()
            for name in names:
                pipeline.hvals(keys.QueueKeys(name).drained)
            (seconds, microseconds), *rings = await pipeline.execute()
        return seconds + microseconds / 1e6, dict(zip(names, rings, strict=True))

    async def tenants(self) -> Mapping[bytes, bytes]:
        """The hash of tenants' terms."""
        return cast("Mapping[bytes, bytes]", await self._redis.hgetall(keys.TENANTS))

    async def set_tenant(self, field: str, value: str) -> None:
        """Set a tenant's terms."""
        await self._redis.hset(keys.TENANTS, field, value)

    async def forget_tenant(self, field: str) -> bool:
        """Remove them; whether there were any."""
        return bool(await self._redis.hdel(keys.TENANTS, field))

    async def api_keys(self) -> Mapping[bytes, bytes]:
        """The hash of the gateway's keys."""
        return cast("Mapping[bytes, bytes]", await self._redis.hgetall(keys.API_KEYS))

    async def presences(self) -> tuple[float, list[tuple[bytes, float]], Mapping[bytes, bytes]]:
        """The server's time, who is there until when, and what they say."""
        async with self._redis.pipeline() as transaction:
            transaction.time()
            transaction.zrange(keys.WORKERS, 0, -1, withscores=True)
            transaction.hgetall(keys.WORKERS_SAID)
            (seconds, microseconds), ends, said = await transaction.execute()
        return seconds + microseconds / 1e6, ends, said

    async def read(self, run: ScriptRun) -> bytes:
        """Run a script that changes nothing."""
        return cast("bytes", await self._run_again(run))

    async def listed(self, name: str, after: str | None) -> list[str] | None:
        """The next part of a list of jobs, the latest first; None when the one to go on after is not there."""
        rank = -1 if after is None else cast("int | None", await self._redis.zrevrank(name, after))
        if rank is None:
            return None
        found = await self._redis.zrevrange(name, rank + 1, rank + LOOKED_AT_TOGETHER)
        return [job_id.decode() for job_id in cast("list[bytes]", found)]

    async def records_and_heads(self, job_ids: Sequence[str]) -> list[tuple[Mapping[bytes, bytes], bytes]]:
        """The record of each job, and the beginning of its result."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hgetall(keys.job_record(job_id))
                pipeline.getrange(keys.result(job_id), 0, HEAD_BYTES - 1)
            found = refuse_errors(await pipeline.execute(raise_on_error=False))
        return list(zip(found[::2], found[1::2], strict=True))

    async def aliases(self) -> Mapping[bytes, bytes]:
        """The hashes of models' other names, and of their adapters."""
        names = cast("Mapping[bytes, bytes]", await self._redis.hgetall(keys.ALIASES))
        adapters = cast("Mapping[bytes, bytes]", await self._redis.hgetall(keys.ADAPTERS))
        return {**adapters, **names}

    async def set_alias(self, run: ScriptRun) -> Sequence[bytes]:
        """Run the alias script."""
        return cast("Sequence[bytes]", await self._run_again(run))

    async def forget_alias(self, alias: str) -> bool:
        """Remove another name, or an adapter's; whether there was one."""
        is_alias = bool(await self._redis.hdel(keys.ALIASES, alias))
        return bool(await self._redis.hdel(keys.ADAPTERS, alias)) or is_alias

    async def webhooks(self, run: ScriptRun) -> Any:  # noqa: ANN401 - whatever the script replies
        """Run a script of the webhooks' outbox; sent once more when a kept connection was dead."""
        return await self._run_again(run)

    async def webhook_secrets(self) -> tuple[Mapping[bytes, bytes], float]:
        """The hash of webhook secrets, and the moment: seconds since the epoch by the server's clock."""
        stored = await self._redis.hgetall(keys.WEBHOOK_SECRETS)
        seconds, microseconds = await self._redis.time()
        return cast("Mapping[bytes, bytes]", stored), seconds + microseconds / 1e6

    async def delete_webhook_secrets(self, field: str) -> bool:
        """Remove a tenant's secrets; whether there were any."""
        return bool(await self._redis.hdel(keys.WEBHOOK_SECRETS, field))

    async def charge(self, run: ScriptRun) -> Sequence[Any]:
        """Run the rate limits' script."""
        return cast("Sequence[Any]", await self._run(run))

    async def cancel(self, run: ScriptRun) -> Sequence[bytes]:
        """Run the cancel script; sent once more when a kept connection was dead."""
        return cast("Sequence[bytes]", await self._run_again(run))

    async def replay(self, run: ScriptRun) -> bytes:
        """Run the replay script."""
        return cast("bytes", await self._run(run))

    async def conversation(self, key: str) -> tuple[Mapping[bytes, bytes], float]:
        """A conversation's hash, empty when there is none, and the seconds until it is gone."""
        async with self._redis.pipeline() as transaction:
            transaction.hgetall(key)
            transaction.pttl(key)
            fields, left_ms = await transaction.execute()
        return fields, max(0, left_ms) / 1000

    async def conversation_tokens(self, key: str) -> int:
        """Tokens of all that was said in a conversation, as of the last answer that was noted."""
        return int(await self._redis.hget(key, TOKENS.decode()) or 0)

    async def line_up(self, run: ScriptRun) -> list[Any]:
        """Run the script that takes, and keeps, a turn's place in line."""
        return cast("list[Any]", await self._run_again(run))

    async def leave_line(self, key: str, ticket: str) -> None:
        """Give up a turn's place in the line of the conversation with this key."""
        async with self._redis.pipeline() as transaction:
            transaction.zrem(keys.line(key), ticket)
            transaction.hdel(keys.tickets(key), ticket)
            await transaction.execute()

    async def settle_turn(self, run: ScriptRun) -> None:
        """Run the script that notes how a turn ended."""
        await self._run_again(run)

    async def forget_conversation(self, key: str) -> bool:
        """Remove a conversation; whether there was one."""
        return bool(await self._redis.delete(key))

    async def limits(self) -> Mapping[bytes, bytes]:
        """The hash of queue limits."""
        return cast("Mapping[bytes, bytes]", await self._redis.hgetall(keys.LIMITS))

    async def set_limit(self, model: str, max_waiting_jobs: int | None) -> None:
        """Set a queue's limit; None: it has none."""
        await self._redis.hset(keys.LIMITS, model, encoded_limit(max_waiting_jobs))

    async def letter(self, letter_id: str) -> bytes | None:
        """One dead letter."""
        return cast("bytes | None", await self._redis.hget(keys.DEAD_LETTERS, letter_id))

    async def letter_ids(self, first: int, last: int) -> list[bytes]:
        """Ids by their place in the index, the latest first; -1 is the last place."""
        return cast("list[bytes]", await self._redis.zrevrange(keys.DEAD_LETTER_INDEX, first, last))

    async def letters(self, first: int, last: int) -> list[bytes | None]:
        """Dead letters by their place in the index; None for one that was removed meanwhile."""
        ids = await self.letter_ids(first, last)
        return cast("list[bytes | None]", await self._redis.hmget(keys.DEAD_LETTERS, ids)) if ids else []

    async def count_letters(self) -> Mapping[str, int]:
        """Dead letters by model."""
        return count_letters(cast("list[bytes]", await self._redis.hvals(keys.DEAD_LETTER_MODELS)))

    async def keep_session(self, name: str, key_digest: str, seconds: int) -> None:
        """Remember whose key a session of the operator's page was opened with."""
        await self._redis.set(name, key_digest, ex=seconds)

    async def session(self, name: str) -> bytes | None:
        """That key's digest."""
        return cast("bytes | None", await self._redis.get(name))

    async def end_session(self, name: str) -> None:
        """Forget it."""
        await self._redis.delete(name)

    async def purge(self, letter_ids: Sequence[str]) -> int:
        """Remove these letters; how many there were."""
        purged = 0
        for start in range(0, len(letter_ids), CHUNK_LETTERS):
            some = letter_ids[start : start + CHUNK_LETTERS]
            async with self._redis.pipeline() as transaction:
                transaction.hdel(keys.DEAD_LETTERS, *some)
                transaction.zrem(keys.DEAD_LETTER_INDEX, *some)
                transaction.hdel(keys.DEAD_LETTER_MODELS, *some)
                purged += int((await transaction.execute())[0])
        return purged

    async def purge_all(self) -> int:
        """Remove every letter; how many there were."""
        async with self._redis.pipeline() as transaction:
            transaction.hlen(keys.DEAD_LETTERS)
            transaction.delete(keys.DEAD_LETTERS, keys.DEAD_LETTER_INDEX, keys.DEAD_LETTER_MODELS)
            return int((await transaction.execute())[0])
