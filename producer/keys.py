r"""Every Redis key and channel that the fleet owns, or shares with Celery: its name, type and lifetime.

======================================  =========  =========================================================
key or channel                          type       meaning and lifetime
======================================  =========  =========================================================
``fleet.<model>``                       list       waiting jobs of priority ``interactive``: messages of
                                                   Celery protocol 2, in by LPUSH, out by RPOP; until taken
``fleet.<model>\x06\x16<3|6|9>``          list       the same for ``normal``, ``batch`` and ``background``
``fleet:models``                        hash       model name to JSON ``{"declared_by": "worker"|"operator",
                                                   "since": seconds}``; for ever
``fleet:job:<id>``                      hash       ``token``, ``model``, ``tenant``, ``priority``,
                                                   ``enqueued_at``, ``body_digest``; a worker adds ``state``,
                                                   ``worker``, ``started_at``; :data:`JOB_RECORD_SECONDS`
``fleet:idempotency:<tenant>:<key>``    hash       ``job_id``, ``body_digest``, ``enqueued_at``; as long as
                                                   the job's record
``celery-task-meta-<id>``               string     Celery's result, JSON; Celery's ``result_expires``
``celery-task-meta-<id>``               channel    the same JSON, published when it is stored
``/<db>.celeryev/task.sent``            channel    Celery's ``task-sent`` event, which Flower shows as PENDING
======================================  =========  =========================================================

The lanes' names are those of kombu's Redis transport (``queue_order_strategy`` and ``priority_steps`` 0, 3, 6, 9;
the most urgent step has the queue's own name), so that any Celery worker or monitor finds them.
"""

from typing import Final
from urllib.parse import quote

from producer.contract import Priority

TASK_NAME: Final = "fleet.generate"

JOB_RECORD_SECONDS: Final = 7 * 24 * 3600
"""How long a job's record and its idempotency key live, from the moment of submitting."""

MODELS: Final = "fleet:models"

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

_RESULT_PREFIX: Final = "celery-task-meta-"


def queue(model: str) -> str:
    """The Celery queue of a model; also the list of its most urgent lane."""
    return f"fleet.{model}"


def lane(model: str, priority: Priority) -> str:
    """The list that jobs of this model and priority wait in."""
    step = PRIORITY_STEPS[priority]
    return f"{queue(model)}{PRIORITY_SEPARATOR}{step}" if step else queue(model)


def job_record(job_id: str) -> str:
    """The hash that says what is known of a job from the moment of submitting."""
    return f"fleet:job:{job_id}"


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
