"""Where jobs stand: in their queue, and in the list of a tenant's."""

from dataclasses import replace

from producer import keys
from producer.connection import asking
from producer.control_link import ControlLink
from producer.job_list import ALL_TENANTS, JobPage, PageScan, no_such_place
from producer.jobs import JobState, JobStatus
from producer.presence import present
from producer.queue_counts import QueueCounts
from producer.queue_place import QueuePlace, place_run, read_place
from producer.submission import Destination


class Standing:
    """Part of a producer; see :class:`producer.Producer`."""

    _url: str
    _destination: Destination
    _link: ControlLink

    @property
    def lists_jobs(self) -> bool:
        """Whether the jobs that this producer submits are listed by their tenant, for :meth:`jobs`.

        It may be set. Each costs Redis two entries of about 100 bytes.
        """
        return self._destination.lists_jobs

    @lists_jobs.setter
    def lists_jobs(self, value: bool) -> None:
        self._destination = replace(self._destination, lists_jobs=value)

    def queues(self) -> list[QueueCounts]:
        """What waits where, and how long the oldest has: of each model that is known, has dead letters or a limit.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return self._link.queue_counts()

    def queue_place(self, status: JobStatus) -> QueuePlace | None:
        """Where a waiting job stands: its position, why it waits, and when it may begin; None for any other job.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        if (run := place_run(status)) is None:
            return read_place(status, None, [])
        with asking(self._url):
            reply, workers = self._link.read(run), self._link.presences()
        return read_place(status, reply, present(*workers, model=status.model))

    def jobs(
        self,
        tenant: str | None = ALL_TENANTS,
        *,
        state: JobState | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> JobPage:
        """Listed jobs, the latest first: of all tenants, of one, or (None) of those without a tenant.

        Only jobs of producers with ``lists_jobs`` (the gateway's among them) are in lists. ``after`` is a page's, and
        goes on from there.

        Raises:
            InvalidRequest: the limit is none, or ``after`` is not in the list (any more).
            FleetUnreachable: Redis could not be reached, or refused.
        """
        scan, name = PageScan(state, limit), keys.job_list(tenant) if tenant != ALL_TENANTS else keys.JOBS
        with asking(self._url):
            while scan.wants_more:
                if (ids := self._link.listed(name, scan.last or after)) is None:
                    raise no_such_place(scan.last or after)
                scan.take(ids, self._link.records_and_heads(ids))
        return scan.page()
