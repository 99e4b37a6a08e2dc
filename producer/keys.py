r"""Every Redis key and channel that the fleet owns, or shares with Celery: its name, type and lifetime.

======================================  =========  =========================================================
key or channel                          type       meaning and lifetime
======================================  =========  =========================================================
``fleet.<model>``                       list       waiting jobs of priority ``interactive``: messages of
                                                   Celery protocol 2, in by LPUSH, out by RPOP; until taken
``fleet.<model>\x06\x16<3|6|9>``          list       the same for ``normal``, ``batch`` and ``background``
``fleet.<model>\x06\x16<1|4|7|10>``       list       an empty element for each job of that lane which waits in flows;
                                                   until it is taken
``fleet:waiting:<model>``               hash       jobs in flows: number to place and message; until taken
``fleet:order:<step>:<model>``          sorted     the flows of a lane: ``<tenant>|<number>``; the same
                                        set
``fleet:prefixes:<step>:<model>``       sorted     ``<tenant>|<prefix>|<number>`` of jobs whose prompts begin alike; the
                                        set        same
``fleet:deadlines:<step>:<model>``      sorted     numbers by deadline; the same
                                        set
``fleet:shares:<step>:<model>``         sorted     tenants that wait, by tokens over weight; while jobs are in flows
                                        set
``fleet:spent:<step>:<model>``          sorted     the same of tenants that do not wait at this moment
                                        set
``fleet:running:<model>``               hash       tenant to its jobs under lease; while there are any
``fleet:charged:<model>``               hash       tag to the step, tenant and tokens of a lease that counts for a
                                                   tenant; until it is done
``fleet:held:<model>``                  set        ``<step>|<tenant>`` of tenants at their limit; until they have room
``fleet:turns:<model>``                 hash       step to what a lane is due while a more urgent one is served
``fleet:tenants``                       hash       tenant, escaped, to ``<weight> <most running jobs>``; for ever
``fleet:doorbell:<model>``              list       a token per burst of new messages, which wakes one waiting
                                                   worker; an hour
``fleet:doorbell-urgent:<model>``       list       the same for messages of the most urgent lane
``fleet:doorbell-own:<consumer>``       list       a token by which a worker ends its own wait; a minute
``fleet:leases:<model>``                sorted     tag of each claimed message, by the moment its lease ends;
                                        set        until it is done
``fleet:leased:<model>``                hash       tag to the claimed message and who claimed it when; the same
``fleet:redelivery:<model>``            hash       SHA-1 of a message whose attempts went wrong to how often and
                                                   why; until it is done, :data:`JOB_RECORD_SECONDS` at most
``fleet:suspects:<model>``              list       messages that may have killed an engine; until run, apart
``fleet:isolation:<model>``             string     the consumer that runs suspects apart; one lease
``fleet:delayed:<model>``               sorted     messages whose time has not come, by that time; until then
                                        set
``fleet:claims:<model>``                string     counts claims; for ever
``fleet:cancels:<model>``               hash       job id to the submission token that was cancelled; until a
                                                   worker has seen it, :data:`JOB_RECORD_SECONDS` at most
``fleet:cancelled:<model>``             channel    JSON ``{"job_id", "submission_token"}`` of each cancellation
``fleet:dead``                          hash       dead letters by id, JSON; until replayed or purged
``fleet:dead:index``                    sorted     their ids, by the moment they were buried; the same
                                        set
``fleet:models``                        hash       model name to JSON ``{"declared_by": "worker"|"operator",
                                                   "since": seconds}``; for ever
``fleet:keys``                          hash       SHA-256 of a key of the gateway to JSON ``{"name", "role",
                                                   "tenant", "created_at"}``; until it is revoked
``fleet:limits``                        hash       model name to the most jobs of it that may wait, over all its
                                                   lanes; for ever
``fleet:job:<id>``                      hash       ``token``, ``model``, ``tenant``, ``priority``,
                                                   ``enqueued_at``; a worker adds ``state``, ``worker``,
                                                   ``started_at``; :data:`JOB_RECORD_SECONDS`
``fleet:idempotency:<tenant>:<key>``    hash       ``job_id``, ``body_digest``, ``enqueued_at``; as long as
                                                   the job's record
``fleet:stream:<id>``                   stream     what a streamed job has said, as :mod:`producer.stream_entries` has
                                                   it; an hour from the last entry
``celery-task-meta-<id>``               string     Celery's result, JSON; Celery's ``result_expires``
``celery-task-meta-<id>``               channel    the same JSON, published when it is stored
``/<db>.celeryev/task.sent``            channel    Celery's ``task-sent`` event, which Flower shows as PENDING
``/<db>.celeryev/task.revoked``         channel    Celery's ``task-revoked`` event of a cancellation
======================================  =========  =========================================================

The lanes' names are those of kombu's Redis transport (``queue_order_strategy`` and ``priority_steps`` 0, 3, 6, 9;
the most urgent step has the queue's own name), so that any Celery worker or monitor finds them.
"""

from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote

from producer.contract import Priority

TASK_NAME: Final = "fleet.generate"

JOB_RECORD_SECONDS: Final = 7 * 24 * 3600
"""How long a job's record and its idempotency key live, from the moment of submitting."""

MODELS: Final = "fleet:models"
TENANTS: Final = "fleet:tenants"
LIMITS: Final = "fleet:limits"
API_KEYS: Final = "fleet:keys"
DEAD_LETTERS: Final = "fleet:dead"
DEAD_LETTER_INDEX: Final = "fleet:dead:index"

PRIORITY_STEPS: Final[dict[Priority, int]] = {
    Priority.INTERACTIVE: 0,
    Priority.NORMAL: 3,
    Priority.BATCH: 6,
    Priority.BACKGROUND: 9,
}
"""The number that kombu's Redis transport knows each priority by; 0 is the most urgent."""

PRIORITY_SEPARATOR: Final = "\x06\x16"

EVENT_EXCHANGE: Final = "celeryev"
TASK_SENT_ROUTING_KEY: Final = "task.sent"

_STREAM_PREFIX: Final = "fleet:stream:"
_RESULT_PREFIX: Final = "celery-task-meta-"


def queue(model: str) -> str:
    """The Celery queue of a model; also the list of its most urgent lane."""
    return f"fleet.{model}"


def lane(model: str, priority: Priority) -> str:
    """The list that jobs of this model and priority wait in."""
    return lane_of_step(model, PRIORITY_STEPS[priority])


def lane_of_step(model: str, step: int) -> str:
    """The list of this model and Celery priority."""
    return f"{queue(model)}{PRIORITY_SEPARATOR}{step}" if step else queue(model)


def flow_lane_of_step(model: str, step: int) -> str:
    """The list that tells how many jobs of this lane wait in flows."""
    return lane_of_step(model, flow_step(step))


def flow_step(step: int) -> int:
    """What stands in that list's name."""
    return step + 1


def all_lanes(model: str) -> list[str]:
    """Lists whose lengths together are the number of jobs that wait."""
    steps = PRIORITY_STEPS.values()
    return [name(model, step) for step in steps for name in (lane_of_step, flow_lane_of_step)]


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """What belongs to the queue of one model beside its lanes; the table above says what each is."""

    model: str

    @classmethod
    def of_queue(cls, name: str) -> Self:
        """The same, by the Celery queue's name."""
        return cls(name.removeprefix("fleet."))

    def _named(self, kind: str) -> str:
        return f"fleet:{kind}:{self.model}"

    @property
    def doorbell(self) -> str:
        """Tokens that wake workers."""
        return self._named("doorbell")

    @property
    def urgent_doorbell(self) -> str:
        """Tokens that wake workers for the most urgent lane."""
        return self._named("doorbell-urgent")

    def doorbell_of(self, priority: Priority) -> str:
        """Tokens that wake workers for a lane."""
        return self.urgent_doorbell if priority is Priority.INTERACTIVE else self.doorbell

    @property
    def waiting(self) -> str:
        """Jobs in flows by number."""
        return self._named("waiting")

    def order(self, step: int) -> str:
        """Flows of a lane."""
        return self._named(f"order:{step}")

    @property
    def running(self) -> str:
        """How many jobs of each tenant are under lease."""
        return self._named("running")

    @property
    def charged(self) -> str:
        """Leases that count for a tenant."""
        return self._named("charged")

    @property
    def leases(self) -> str:
        """Tags by the end of their lease."""
        return self._named("leases")

    @property
    def leased(self) -> str:
        """Messages by tag."""
        return self._named("leased")

    @property
    def redelivery(self) -> str:
        """What went wrong with messages."""
        return self._named("redelivery")

    @property
    def suspects(self) -> str:
        """Messages that are run apart."""
        return self._named("suspects")

    @property
    def isolation(self) -> str:
        """Who runs them."""
        return self._named("isolation")

    @property
    def delayed(self) -> str:
        """Messages for later."""
        return self._named("delayed")

    @property
    def claim_counter(self) -> str:
        """Number of the last claim."""
        return self._named("claims")

    @property
    def cancels(self) -> str:
        """Cancelled submissions."""
        return self._named("cancels")

    @property
    def cancelled_channel(self) -> str:
        """Where cancellations are announced."""
        return self._named("cancelled")


def own_doorbell(consumer: str) -> str:
    """The list by which a consumer wakes itself."""
    return f"fleet:doorbell-own:{consumer}"


def job_record(job_id: str) -> str:
    """The hash that says what is known of a job from the moment of submitting."""
    return f"fleet:job:{job_id}"


def stream(job_id: str) -> str:
    """The stream of what a job has said so far."""
    return f"{_STREAM_PREFIX}{job_id}"


def job_id_of_stream(name: str) -> str:
    """The job id in a name that :func:`stream` made."""
    return name.removeprefix(_STREAM_PREFIX)


def idempotency(tenant: str | None, key: str) -> str:
    """The hash that remembers which job a tenant's idempotency key named; no tenant is a tenant of its own."""
    # Escaped, so that no tenant can choose a name that reaches into another tenant's keys.
    return f"fleet:idempotency:{quote(tenant or '', safe='')}:{key}"


def result(job_id: str) -> str:
    """Celery's result, and the channel on which it is published."""
    return f"{_RESULT_PREFIX}{job_id}"


def job_id_of_result(name: str) -> str:
    """The job id in a name that :func:`result` made."""
    return name.removeprefix(_RESULT_PREFIX)


def task_sent_channel(database: int) -> str:
    """The channel of Celery's ``task-sent`` events on this Redis database."""
    return f"/{database}.{EVENT_EXCHANGE}/{TASK_SENT_ROUTING_KEY}"
