"""What an operator asks of a fleet: which models it takes, how long its queues may get, and its dead letters."""

import time
from collections.abc import Iterable

from producer.api_keys import ApiKey, Role, digest_of, digest_with_id, encoded_key, key_for, new_secret, read_keys
from producer.connection import asking
from producer.control_link import ControlLink
from producer.dead_letters import DeadLetter, LetterScan, found_letter, prepare_replay, replayed_job
from producer.jobs import ModelDeclaration
from producer.registry import checked_limit, checked_name, read_limits, read_models
from producer.submission import Destination
from producer.tenants import TenantTerms, encoded_terms, read_tenants, tenant_field


class Operations:
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

    def queue_limits(self) -> dict[str, int]:
        """The most jobs that may wait, by model; a model that is not among them takes any number.

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

    def tenants(self) -> dict[str, TenantTerms]:
        """The tenants that have terms of their own; every other has weight 1 and no limit.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return read_tenants(self._link.tenants())

    def set_tenant(self, tenant: str, *, weight: float = 1.0, max_running_jobs: int | None = None) -> None:
        """Give a tenant a weight and a limit of jobs that workers hold at a time; they count from the next claim on.

        Tenants that wait for one model in one lane share it by tokens, each in proportion to its weight.

        Raises:
            InvalidRequest: no tenant may have this name, weight or limit.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        field, value = tenant_field(tenant), encoded_terms(TenantTerms(weight, max_running_jobs))
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

    def create_key(self, name: str, *, role: Role = Role.PRODUCER, tenant: str | None = None) -> str:
        """Make a key of the gateway; it is returned this once, and kept nowhere.

        A producer's key submits jobs of ``tenant`` (unless given, the tenant of the key's own name) and sees those
        alone; an operator's sees all.

        Raises:
            InvalidRequest: no key or tenant may have this name, or an operator's key is to have a tenant.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        secret = new_secret()
        digest = digest_of(secret)
        key = key_for(digest, name, role, tenant, time.time())
        with asking(self._url):
            self._link.add_key(digest, encoded_key(key))
        return secret

    def api_keys(self) -> list[ApiKey]:
        """What is known of each of the gateway's keys, the oldest first.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            known = read_keys(self._link.api_keys())
        return sorted(known.values(), key=lambda key: key.created_at)

    def revoke_key(self, key_id: str) -> None:
        """Let a key open nothing any more; gateways notice within seconds.

        Raises:
            InvalidRequest: there is no such key.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            digest = digest_with_id(read_keys(self._link.api_keys()), key_id)
            self._link.revoke_key(digest)

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
