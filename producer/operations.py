"""What an operator asks of a fleet: which models it takes, how long its queues may get, and its dead letters."""

from collections.abc import Iterable

from producer.connection import asking
from producer.control_link import ControlLink
from producer.dead_letters import DeadLetter, LetterScan, found_letter, prepare_replay, replayed_job
from producer.drain_rate import DrainRate, read_rates
from producer.jobs import ModelDeclaration
from producer.key_operations import KeyOperations
from producer.presence import WorkerPresence, present
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
from producer.webhooks.operations import WebhookOperations


class Operations(KeyOperations, WebhookOperations):
    """The operator's part of a producer; see :class:`producer.Producer`."""

    _url: str
    _link: ControlLink
    _destination: Destination

    def models(self) -> dict[str, ModelDeclaration]:
        """The models that jobs may name.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return read_models(self._link.models())

    def declare_model(self, name: str) -> None:
        """Let jobs name this model before a worker has served it; no change if it is known.

        Raises:
            InvalidRequest: no model may have this name.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            self._link.declare_model(checked_name(name))

    def forget_model(self, name: str) -> bool:
        """Refuse further jobs for this model; whether it was known. Jobs that wait stay queued.

        Raises:
            InvalidRequest: no model may have this name.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return self._link.forget_model(checked_name(name))

    def aliases(self) -> dict[str, str]:
        """The other names of models, each with the model's own.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return read_aliases(self._link.aliases())

    def set_alias(self, alias: str, model: str) -> None:
        """Let jobs name this model by another name too; one that named another model names this one from then on.

        Limits, doorbells and results are the model's own: the other name is only a way to it.

        Raises:
            InvalidRequest: the alias is a model's own name, the model is not known, or no model may have such a name.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        run = alias_run(checked_name(alias), checked_name(model), may_move=True)
        with asking(self._url):
            reply = self._link.set_alias(run)
        refuse_alias(alias, model, reply)

    def forget_alias(self, alias: str) -> bool:
        """Refuse further jobs under this other name; whether there was one.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return self._link.forget_alias(alias)

    def workers(self, model: str | None = None) -> list[WorkerPresence]:
        """The workers that were heard of in the last seconds, by name; those of one model when it is given.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return present(*self._link.presences(), model=model)

    def queue_limits(self) -> dict[str, int | None]:
        """The most jobs that may wait, by model; None: any number. A model that is not among them takes 2,000,000.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return read_limits(self._link.limits())

    def set_queue_limit(self, model: str, max_waiting_jobs: int | None) -> None:
        """Bound how many jobs of this model may wait, over all its lanes; None lifts the bound, 0 takes no jobs.

        Every producer obeys it: :meth:`submit` raises :class:`QueueFull`, :meth:`map` waits for room. Jobs that wait
        already stay, as do those that a Celery canvas sends.

        Raises:
            InvalidRequest: it is no number of jobs, or no model may have this name.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            self._link.set_limit(checked_name(model), checked_limit(max_waiting_jobs))

    def drain_rates(self) -> dict[str, DrainRate]:
        """How many jobs and tokens are finished a second, by model; a model of which none was lately is left out.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            now, rings = self._link.drained()
        return read_rates(rings, now)

    def tenants(self) -> dict[str, TenantTerms]:
        """The tenants that have terms of their own; every other has weight 1 and no limit.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return read_tenants(self._link.tenants())

    def set_tenant(
        self,
        tenant: str,
        *,
        weight: float = 1.0,
        max_running_jobs: int | None = None,
        max_waiting_jobs: int | None = None,
    ) -> None:
        """Give a tenant a weight, a limit of jobs that workers hold at a time, and one of jobs that wait for a model.

        They count from the next claim or submission on. Tenants that wait for one model in one lane share it by
        tokens, each in proportion to its weight. Beyond ``max_waiting_jobs`` of one model, over all its lanes,
        :meth:`submit` raises :class:`QueueFull`, and :meth:`map` waits for room.

        Raises:
            InvalidRequest: no tenant may have this name, weight or limit.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        field, value = tenant_field(tenant), encoded_terms(TenantTerms(weight, max_running_jobs, max_waiting_jobs))
        with asking(self._url):
            self._link.set_tenant(field, value)

    def forget_tenant(self, tenant: str) -> bool:
        """Give a tenant the terms of everybody again; whether it had others.

        Raises:
            InvalidRequest: no tenant may have this name.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return self._link.forget_tenant(tenant_field(tenant))

    def dead_letters(self, limit: int = 100, offset: int = 0, model: str | None = None) -> list[DeadLetter]:
        """Dead letters, of one model or of all, the latest first.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        scan = LetterScan(limit, offset, model)
        with asking(self._url):
            while (places := scan.next_range) is not None:
                scan.take(self._link.letters(*places))
        return scan.found

    def dead_letter_ids(self) -> list[str]:
        """The ids of all dead letters, the latest first.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return [letter_id.decode() for letter_id in self._link.letter_ids(0, -1)]

    def dead_letter(self, letter_id: str) -> DeadLetter:
        """One dead letter.

        Raises:
            UnknownDeadLetter: there is none of this id.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            stored = self._link.letter(letter_id)
        return found_letter(letter_id, stored)

    def replay_dead_letter(self, letter_id: str) -> str:
        """Queue the letter's message again, as new: its job's id. The job's failure is forgotten, as is a cancel of it.

        A deadline in the message still holds: past it, the job ends as ``expired``.

        Raises:
            UnknownDeadLetter: there is none of this id (any more).
            NotReplayable: it names no job.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        while True:
            letter = self.dead_letter(letter_id)
            run = prepare_replay(letter, self._destination)
            with asking(self._url):
                reply = self._link.replay(run)
            if (job_id := replayed_job(letter, reply)) is not None:
                return job_id

    def purge_dead_letters(self, letter_ids: Iterable[str]) -> int:
        """Remove these dead letters for good; how many of them there were.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return self._link.purge(list(letter_ids))

    def purge_all_dead_letters(self) -> int:
        """Remove every dead letter for good; how many there were.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return self._link.purge_all()
