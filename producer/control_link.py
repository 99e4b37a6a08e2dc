"""The commands about jobs in the fleet, queue limits and dead letters; otherwise as :mod:`producer.link`."""

from collections.abc import Mapping, Sequence
from typing import cast

from producer import keys
from producer.dead_letters import CHUNK_LETTERS
from producer.link import Link
from producer.script import ScriptRun


class ControlLink(Link):
    """What :class:`~producer.link.Link` is, with these commands added."""

    def tenants(self) -> Mapping[bytes, bytes]:
        """The hash of tenants' terms."""
        return cast("Mapping[bytes, bytes]", self._redis.hgetall(keys.TENANTS))

    def set_tenant(self, field: str, value: str) -> None:
        """Set a tenant's terms."""
        self._redis.hset(keys.TENANTS, field, value)

    def forget_tenant(self, field: str) -> bool:
        """Remove them; whether there were any."""
        return bool(self._redis.hdel(keys.TENANTS, field))

    def api_keys(self) -> Mapping[bytes, bytes]:
        """The hash of the gateway's keys."""
        return cast("Mapping[bytes, bytes]", self._redis.hgetall(keys.API_KEYS))

    def add_key(self, digest: str, value: bytes) -> None:
        """Let a key open the gateway."""
        self._redis.hset(keys.API_KEYS, digest, value)

    def revoke_key(self, digest: str) -> bool:
        """Let it open nothing; whether it did."""
        return bool(self._redis.hdel(keys.API_KEYS, digest))

    def cancel(self, run: ScriptRun) -> Sequence[bytes]:
        """Run the cancel script; sent once more when a kept connection was dead."""
        return cast("Sequence[bytes]", self._run_again(run))

    def replay(self, run: ScriptRun) -> bytes:
        """Run the replay script."""
        return cast("bytes", self._run(run))

    def limits(self) -> Mapping[bytes, bytes]:
        """The hash of queue limits."""
        return cast("Mapping[bytes, bytes]", self._redis.hgetall(keys.LIMITS))

    def set_limit(self, model: str, max_waiting_jobs: int | None) -> None:
        """Set a queue's limit, or lift it."""
        if max_waiting_jobs is None:
            self._redis.hdel(keys.LIMITS, model)
        else:
            self._redis.hset(keys.LIMITS, model, str(max_waiting_jobs))

    def letter(self, letter_id: str) -> bytes | None:
        """One dead letter."""
        return cast("bytes | None", self._redis.hget(keys.DEAD_LETTERS, letter_id))

    def letter_ids(self, first: int, last: int) -> list[bytes]:
        """Ids by their place in the index, the latest first; -1 is the last place."""
        return cast("list[bytes]", self._redis.zrevrange(keys.DEAD_LETTER_INDEX, first, last))

    def letters(self, first: int, last: int) -> list[bytes | None]:
        """Dead letters by their place in the index; None for one that was removed meanwhile."""
        ids = self.letter_ids(first, last)
        return cast("list[bytes | None]", self._redis.hmget(keys.DEAD_LETTERS, ids)) if ids else []

    def purge(self, letter_ids: Sequence[str]) -> int:
        """Remove these letters; how many there were."""
        purged = 0
        for start in range(0, len(letter_ids), CHUNK_LETTERS):
            some = letter_ids[start : start + CHUNK_LETTERS]
            with self._redis.pipeline() as transaction:
                transaction.hdel(keys.DEAD_LETTERS, *some)
                transaction.zrem(keys.DEAD_LETTER_INDEX, *some)
                purged += int(transaction.execute()[0])
        return purged

    def purge_all(self) -> int:
        """Remove every letter; how many there were."""
        with self._redis.pipeline() as transaction:
            transaction.hlen(keys.DEAD_LETTERS)
            transaction.delete(keys.DEAD_LETTERS, keys.DEAD_LETTER_INDEX)
            return int(transaction.execute()[0])
