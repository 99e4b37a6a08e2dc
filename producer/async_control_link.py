"""The commands about jobs in the fleet, queue limits and dead letters; otherwise as :mod:`producer.async_link`."""

from collections.abc import Mapping, Sequence
from typing import cast

from producer import keys
from producer.async_link import AsyncLink
from producer.dead_letters import CHUNK_LETTERS
from producer.script import ScriptRun


class AsyncControlLink(AsyncLink):
    """What :class:`~producer.async_link.AsyncLink` is, with these commands added."""

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

    async def cancel(self, run: ScriptRun) -> Sequence[bytes]:
        """Run the cancel script; sent once more when a kept connection was dead."""
        return cast("Sequence[bytes]", await self._run_again(run))

    async def replay(self, run: ScriptRun) -> bytes:
        """Run the replay script."""
        return cast("bytes", await self._run(run))

    async def limits(self) -> Mapping[bytes, bytes]:
        """The hash of queue limits."""
        return cast("Mapping[bytes, bytes]", await self._redis.hgetall(keys.LIMITS))

    async def set_limit(self, model: str, max_waiting_jobs: int | None) -> None:
        """Set a queue's limit, or lift it."""
        if max_waiting_jobs is None:
            await self._redis.hdel(keys.LIMITS, model)
        else:
            await self._redis.hset(keys.LIMITS, model, str(max_waiting_jobs))

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

    async def purge(self, letter_ids: Sequence[str]) -> int:
        """Remove these letters; how many there were."""
        purged = 0
        for start in range(0, len(letter_ids), CHUNK_LETTERS):
            some = letter_ids[start : start + CHUNK_LETTERS]
            async with self._redis.pipeline() as transaction:
                transaction.hdel(keys.DEAD_LETTERS, *some)
                transaction.zrem(keys.DEAD_LETTER_INDEX, *some)
                purged += int((await transaction.execute())[0])
        return purged

    async def purge_all(self) -> int:
        """Remove every letter; how many there were."""
        async with self._redis.pipeline() as transaction:
            transaction.hlen(keys.DEAD_LETTERS)
            transaction.delete(keys.DEAD_LETTERS, keys.DEAD_LETTER_INDEX)
            return int((await transaction.execute())[0])
