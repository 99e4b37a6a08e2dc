"""Celery's Redis result backend, whose results end deliveries: result, acknowledgement and lease check are one step.

Results of jobs that finish together go out together. It also leaves out the SUBSCRIBE that the stock backend sends for
every task that is published: who waits for a result subscribes by itself.
"""

import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
from celery.backends.redis import RedisBackend
from celery.states import READY_STATES
from redis import Redis

from producer import keys
from producer.contract import GenerationResult, Usage
from producer.redis_client import connect
from producer.sentinel_address import names_sentinels
from workers.pool.outcome import current_outcome, current_tag
from workers.transport.lease_store import Finish, FinishStatus
from workers.transport.leases import Leases
from workers.transport.ledger import Held


class FleetBackend(RedisBackend):
    """Named by the ``result_backend`` setting; Celery makes it. Without ``leases`` it stores as the stock one does."""

    leases: Leases | None = None
    """Set in a worker process."""
    address: str | None = None
    """Where ``result_backend`` says less: that setting is shown to whoever inspects a worker."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Celery's
        super().__init__(*args, **kwargs)
        self._local = threading.local()

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> Any:  # noqa: ANN401 - Celery's
        # For Celery, sentinels are several addresses; for us they are one, which ``connect`` reads.
        return defaults if names_sentinels(url) else super()._params_from_url(url, defaults)

    def _create_client(self, **params: Any) -> Redis:  # noqa: ANN401 - Celery's
        return connect(
            self.address or self.url,
            connect_timeout_seconds=params["socket_connect_timeout"],
            socket_timeout_seconds=params["socket_timeout"],
        )

    def as_uri(self, include_password: bool = False) -> str:  # noqa: FBT001, FBT002 - Celery's signature
        """The address; by default without a password."""
        return self.url if names_sentinels(self.url) else str(super().as_uri(include_password))

    def on_task_call(self, producer: object, task_id: str) -> None:
        """No SUBSCRIBE per published task."""

    def _store_result(self, task_id: str, result: Any, state: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - Celery's
        """A final state of a job that this process holds ends its delivery; everything else is stored as usual.

        ``args`` and ``options`` hold Celery's ``traceback`` and ``request``.
        """
        held = self.leases.held_for(task_id, current_tag.get()) if self.leases and state in READY_STATES else None
        if self.leases and state not in READY_STATES and self._get_task_meta_for(task_id)["status"] in READY_STATES:
            return result  # a retry that is announced late does not undo a cancellation
        if held is None:
            self._note(task_id, state)
            return super()._store_result(task_id, result, state, *args, **options)
        traceback = args[0] if args else options.get("traceback")
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=options.get("request"))
        value = self.encode(meta | {"task_id": task_id})
        self._end(held, task_id, value.encode() if isinstance(value, str) else value)
        return result

    def _note(self, task_id: str, state: str) -> None:
        """Say in the job's record what is about to be stored without ending a delivery.

        Monitors see whether there is a result, may not read it, and take one without a note for a success.
        """
        if self.leases is None or state == "SUCCESS":
            return
        with self.client.pipeline() as transaction:
            transaction.hset(keys.job_record(task_id), "ended", state if state in READY_STATES else "")
            if self.expires:
                transaction.expire(keys.job_record(task_id), int(self.expires), nx=True)
            transaction.execute()

    def store_success(self, task_id: str, result: str) -> bool:
        """End the current delivery with ``result``, which is JSON already; False when it is not this process' to end.

        Stored is what Celery stores for a job of no group and without a parent, byte order of the keys included.
        """
        held = self.leases.held_for(task_id, current_tag.get()) if self.leases else None
        if held is None:
            return False
        date_done, name = datetime.now(UTC).isoformat(), orjson.dumps(task_id).decode()
        value = (
            f'{{"status":"SUCCESS","result":{result},"traceback":null,"children":[],'
            f'"date_done":"{date_done}","task_id":{name}}}'
        )
        self._end(held, task_id, value.encode())
        return True

    def _end(self, held: Held, task_id: str, value: bytes) -> None:
        usage = self._usage_of(held)
        end = Finish(
            tag=held.tag,
            result_key=keys.result(task_id),
            result=value,
            lifetime_seconds=int(self.expires or 0),
            dead_letter=held.dead_letter,
            tokens=usage.total_tokens if usage else None,
        )
        group: list[Finish] | None = getattr(self._local, "ends", None)
        if group is not None:
            group.append(end)
        elif self.leases is not None:
            self.leases.end([end])

    def _usage_of(self, held: Held) -> Usage | None:
        """What the delivery's answer took, if it is this thread's outcome; the next claims are measured by it."""
        outcome = current_outcome.get(None) if current_tag.get() == held.tag else None
        if not isinstance(outcome, GenerationResult):
            return None
        if self.leases is not None:
            usage = outcome.usage
            self.leases.appetite.learn(held.message.prompt_bytes, usage.prompt_tokens, usage.completion_tokens)
        return outcome.usage

    @contextlib.contextmanager
    def grouped(self) -> Iterator[None]:
        """Hold back the results that this thread stores; the caller flushes before it leaves."""
        self._local.ends, self._local.statuses = [], {}
        try:
            yield
        finally:
            self._local.ends = None

    def flush(self) -> dict[str, FinishStatus]:
        """Write what this thread held back; by tag what became of each since :meth:`grouped`. May be repeated."""
        ends: list[Finish] = self._local.ends
        statuses: dict[str, FinishStatus] = self._local.statuses
        if ends and self.leases is not None:
            statuses |= self.leases.end(ends)
            ends.clear()
        return statuses

    def on_chord_part_return(self, request: Any, state: Any, result: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """A chord counts its members: the member's own result must be there first, and be this attempt's."""
        if getattr(self._local, "ends", None) is not None:
            # Retried here: Celery's tracer makes a failed job of one whose chord raises.
            statuses: dict[str, FinishStatus] = self.ensure(self.flush, ())
            if statuses.get(current_tag.get() or "") is FinishStatus.FENCED:
                return
        super().on_chord_part_return(request, state, result, **kwargs)
