"""Where jobs stand: in their queue, and in the list of a tenant's."""

from dataclasses import replace

from producer import keys
from producer.async_control_link import AsyncControlLink
from producer.connection import asking
from producer.job_list import ALL_TENANTS, JobPage, PageScan, no_such_place
from producer.jobs import JobState, JobStatus
from producer.presence import present
from producer.queue_counts import QueueCounts, counting_run, models_with_queues, read_counts
from producer.queue_place import QueuePlace, place_run, read_place
from producer.registry import read_limits, read_models
from producer.submission import Destination


class AsyncStanding:
    """Part of a producer; see :class:`producer.AsyncProducer`."""

    _url: str
    _destination: Destination
    _link: AsyncControlLink

    @property
    def lists_jobs(self) -> bool:
        """Whether the jobs that this producer submits are listed by their tenant, for :meth:`jobs`.

        It may be set. Each costs Redis two entries of about 100 bytes.
        """
        return self._destination.lists_jobs

    @lists_jobs.setter
    def lists_jobs(self, value: bool) -> None:
        self._destination = replace(self._destination, lists_jobs=value)

    async def queues(self) -> list[QueueCounts]:
        """What waits where, and how long the oldest has; see :meth:`producer.Producer.queues`."""
        with asking(self._url):
            dead, limits = await self._link.count_letters(), read_limits(await self._link.limits())
            run = counting_run(models_with_queues(read_models(await self._link.models()), dead, limits))
            return read_counts(run, await self._link.read(run), dead, limits)

    async def queue_place(self, status: JobStatus) -> QueuePlace | None:
        """Where a waiting job stands; see :meth:`producer.Producer.queue_place`."""
        if (run := place_run(status)) is None:
            return read_place(status, None, [])
        with asking(self._url):
            reply, workers = await self._link.read(run), await self._link.presences()
        return read_place(status, reply, present(*workers, model=status.model))

    async def jobs(
        self,
        tenant: str | None = ALL_TENANTS,
        *,
        state: JobState | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> JobPage:
        """Listed jobs, the latest first; see :meth:`producer.Producer.jobs`."""
        scan, name = PageScan(state, limit), keys.job_list(tenant) if tenant != ALL_TENANTS else keys.JOBS
        with asking(self._url):
            while scan.wants_more:
                if (ids := await self._link.listed(name, scan.last or after)) is None:
                    raise no_such_place(scan.last or after)
                scan.take(ids, await self._link.records_and_heads(ids))
        return scan.page()
