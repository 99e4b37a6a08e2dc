"""What an operator asks of a fleet, for event loops: models, queue limits and dead letters."""

from collections.abc import Iterable

from producer.api_keys import ApiKey, read_keys
from producer.async_control_link import AsyncControlLink
from producer.connection import asking
from producer.dead_letters import DeadLetter, LetterScan, found_letter, prepare_replay, replayed_job
from producer.drain_rate import DrainRate, read_rates
from producer.jobs import ModelDeclaration
from producer.presence import WorkerPresence, present
from producer.rate_limits import Standing, charge_run, read_standing
from producer.registry import (
    alias_run,
    checked_limit,
    checked_name,
    read_aliases,
    read_limits,
    read_models,
    refuse_alias,
)
from producer.submission import Destination
from producer.tenants import TenantTerms, encoded_terms, read_tenants, tenant_field
from producer.webhooks.async_operations import AsyncWebhookOperations


class AsyncOperations(AsyncWebhookOperations):
    """The operator's part of a producer; see :class:`producer.AsyncProducer`."""

    _url: str
    _link: AsyncControlLink
    _destination: Destination

    async def models(self) -> dict[str, ModelDeclaration]:
        """The models that jobs may name; see :meth:`producer.Producer.models`."""
        with asking(self._url):
            return read_models(await self._link.models())

    async def declare_model(self, name: str) -> None:
        """Let jobs name this model before a worker has served it; see :meth:`producer.Producer.declare_model`."""
        with asking(self._url):
            await self._link.declare_model(checked_name(name))

    async def forget_model(self, name: str) -> bool:
        """Refuse further jobs for this model; see :meth:`producer.Producer.forget_model`."""
        with asking(self._url):
            return await self._link.forget_model(checked_name(name))

    async def workers(self, model: str | None = None) -> list[WorkerPresence]:
        """The workers that were heard of in the last seconds; see :meth:`producer.Producer.workers`."""
        with asking(self._url):
            return present(*await self._link.presences(), model=model)

    async def aliases(self) -> dict[str, str]:
        """The other names of models; see :meth:`producer.Producer.aliases`."""
        with asking(self._url):
            return read_aliases(await self._link.aliases())

    async def set_alias(self, alias: str, model: str) -> None:
        """Let jobs name this model by another name too; see :meth:`producer.Producer.set_alias`."""
        run = alias_run(checked_name(alias), checked_name(model), may_move=True)
        with asking(self._url):
            reply = await self._link.set_alias(run)
        refuse_alias(alias, model, reply)

    async def forget_alias(self, alias: str) -> bool:
        """Refuse further jobs under this other name; see :meth:`producer.Producer.forget_alias`."""
        with asking(self._url):
            return await self._link.forget_alias(alias)

    async def queue_limits(self) -> dict[str, int | None]:
        """The most jobs that may wait, by model; see :meth:`producer.Producer.queue_limits`."""
        with asking(self._url):
            return read_limits(await self._link.limits())

    async def set_queue_limit(self, model: str, max_waiting_jobs: int | None) -> None:
        """Bound how many jobs of this model may wait; see :meth:`producer.Producer.set_queue_limit`."""
        with asking(self._url):
            await self._link.set_limit(checked_name(model), checked_limit(max_waiting_jobs))

    async def drain_rates(self) -> dict[str, DrainRate]:
        """How many jobs and tokens are finished a second, by model; see :meth:`producer.Producer.drain_rates`."""
        with asking(self._url):
            now, rings = await self._link.drained()
        return read_rates(rings, now)

    async def tenants(self) -> dict[str, TenantTerms]:
        """The tenants that have terms of their own; see :meth:`producer.Producer.tenants`."""
        with asking(self._url):
            return read_tenants(await self._link.tenants())

    async def set_tenant(
        self,
        tenant: str,
        *,
        weight: float = 1.0,
        max_running_jobs: int | None = None,
        max_waiting_jobs: int | None = None,
    ) -> None:
        """Give a tenant a weight and limits; see :meth:`producer.Producer.set_tenant`."""
        field, value = tenant_field(tenant), encoded_terms(TenantTerms(weight, max_running_jobs, max_waiting_jobs))
        with asking(self._url):
            await self._link.set_tenant(field, value)

    async def forget_tenant(self, tenant: str) -> bool:
        """Give a tenant the terms of everybody again; see :meth:`producer.Producer.forget_tenant`."""
        with asking(self._url):
            return await self._link.forget_tenant(tenant_field(tenant))

    async def api_keys(self) -> dict[str, ApiKey]:
        """The gateway's keys by their digest."""
        with asking(self._url):
            return read_keys(await self._link.api_keys())

    async def charge_key(self, key: ApiKey, requests: int, tokens: int) -> Standing:
        """Charge one of the gateway's keys, unless it has not as much left; the standing says so.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        run = charge_run(key.key_id, key.limits, requests, tokens, correct=False)
        with asking(self._url):
            return read_standing(key.limits, await self._link.charge(run))

    async def correct_key(self, key: ApiKey, tokens: int) -> Standing:
        """Charge tokens that were taken beyond what was charged, or give back (less than none) what was not.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        run = charge_run(key.key_id, key.limits, 0, tokens, correct=True)
        with asking(self._url):
            return read_standing(key.limits, await self._link.charge(run))

    async def dead_letters(self, limit: int = 100, offset: int = 0, model: str | None = None) -> list[DeadLetter]:
        """Dead letters, the latest first; see :meth:`producer.Producer.dead_letters`."""
        scan = LetterScan(limit, offset, model)
        with asking(self._url):
            while (places := scan.next_range) is not None:
                scan.take(await self._link.letters(*places))
        return scan.found

    async def dead_letter_ids(self) -> list[str]:
        """The ids of all dead letters, the latest first; see :meth:`producer.Producer.dead_letter_ids`."""
        with asking(self._url):
            return [letter_id.decode() for letter_id in await self._link.letter_ids(0, -1)]

    async def dead_letter(self, letter_id: str) -> DeadLetter:
        """One dead letter; see :meth:`producer.Producer.dead_letter`."""
        with asking(self._url):
            stored = await self._link.letter(letter_id)
        return found_letter(letter_id, stored)

    async def replay_dead_letter(self, letter_id: str) -> str:
        """Queue the letter's message again; see :meth:`producer.Producer.replay_dead_letter`."""
        while True:
            letter = await self.dead_letter(letter_id)
            run = prepare_replay(letter, self._destination)
            with asking(self._url):
                reply = await self._link.replay(run)
            if (job_id := replayed_job(letter, reply)) is not None:
                return job_id

    async def purge_dead_letters(self, letter_ids: Iterable[str]) -> int:
        """Remove these dead letters for good; see :meth:`producer.Producer.purge_dead_letters`."""
        with asking(self._url):
            return await self._link.purge(list(letter_ids))

    async def purge_all_dead_letters(self) -> int:
        """Remove every dead letter for good; see :meth:`producer.Producer.purge_all_dead_letters`."""
        with asking(self._url):
            return await self._link.purge_all()
