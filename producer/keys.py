"""Names of every Redis key and channel that the fleet owns, or shares with Celery: docs/redis-keys.md has them all.

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
ALIASES: Final = "fleet:aliases"
ADAPTERS: Final = "fleet:adapters"
LIMITS: Final = "fleet:limits"
MEMORY: Final = "fleet:memory"
WEBHOOKS_AWAITING: Final = "fleet:webhooks:awaiting"
WEBHOOKS_DUE: Final = "fleet:webhooks:due"
WEBHOOKS_DEAD: Final = "fleet:webhooks:dead"
WEBHOOK_SECRETS: Final = "fleet:webhooks:secrets"
API_KEYS: Final = "fleet:keys"
WORKERS: Final = "fleet:workers"
WORKERS_SAID: Final = "fleet:workers:said"
JOBS: Final = "fleet:jobs"
DEAD_LETTERS: Final = "fleet:dead"
DEAD_LETTER_INDEX: Final = "fleet:dead:index"
DEAD_LETTER_MODELS: Final = "fleet:dead:models"

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
_CONVERSATION_PREFIX: Final = "fleet:conversation:"


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
    """What belongs to the queue of one model beside its lanes; docs/redis-keys.md says what each is."""

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
    def drained(self) -> str:
        """What was finished lately."""
        return self._named("drained")

    @property
    def cancels(self) -> str:
        """Cancelled submissions."""
        return self._named("cancels")

    @property
    def cancelled_channel(self) -> str:
        """Where cancellations are announced."""
        return self._named("cancelled")


def rate(key_id: str) -> str:
    """The hash of what a key of the gateway has asked for lately."""
    return f"fleet:rate:{key_id}"


def own_doorbell(consumer: str) -> str:
    """The list by which a consumer wakes itself."""
    return f"fleet:doorbell-own:{consumer}"


def ui_session(digest: str) -> str:
    """The string that says whose a session of the operator's page is."""
    return f"fleet:ui-session:{digest}"


def job_record(job_id: str) -> str:
    """The hash that says what is known of a job from the moment of submitting."""
    return f"fleet:job:{job_id}"


def stream(job_id: str) -> str:
    """The stream of what a job has said so far."""
    return f"{_STREAM_PREFIX}{job_id}"


def job_id_of_stream(name: str) -> str:
    """The job id in a name that :func:`stream` made."""
    return name.removeprefix(_STREAM_PREFIX)


def job_list(tenant: str | None) -> str:
    """The sorted set of a tenant's listed jobs; no tenant is a tenant of its own."""
    return f"{JOBS}:{quote(tenant or '', safe='')}"


def idempotency(tenant: str | None, key: str) -> str:
    """The hash that remembers which job a tenant's idempotency key named; no tenant is a tenant of its own."""
    # Escaped, so that no tenant can choose a name that reaches into another tenant's keys.
    return f"fleet:idempotency:{quote(tenant or '', safe='')}:{key}"


def conversation(tenant: str | None, conversation_id: str) -> str:
    """The hash of a tenant's conversation; no tenant is a tenant of its own."""
    return f"{_CONVERSATION_PREFIX}{quote(tenant or '', safe='')}:{quote(conversation_id, safe='')}"


def line(conversation_key: str) -> str:
    """The sorted set of tickets of a conversation's turns that wait."""
    return f"fleet:line:{conversation_key.removeprefix(_CONVERSATION_PREFIX)}"


def tickets(conversation_key: str) -> str:
    """The hash that says until when each of these tickets is good."""
    return f"fleet:tickets:{conversation_key.removeprefix(_CONVERSATION_PREFIX)}"


def result(job_id: str) -> str:
    """Celery's result, and the channel on which it is published."""
    return f"{_RESULT_PREFIX}{job_id}"


def job_id_of_result(name: str) -> str:
    """The job id in a name that :func:`result` made."""
    return name.removeprefix(_RESULT_PREFIX)


def task_sent_channel(database: int) -> str:
    """The channel of Celery's ``task-sent`` events on this Redis database."""
    return f"/{database}.{EVENT_EXCHANGE}/{TASK_SENT_ROUTING_KEY}"
