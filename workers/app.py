"""The Celery app of one worker, with the settings that were measured to matter (ARCHITECTURE.md says why)."""

from dataclasses import dataclass
from typing import Any, Final

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from producer import keys
from producer.contract import GenerationResult
from producer.errors import InferenceFailed
from workers.inference.classify import Failed
from workers.pool.outcome import current_outcome
from workers.transport.broker_address import backend_url, broker_settings
from workers.transport.leases import Leases

PUBLISH_RETRY_POLICY: Final = {"max_retries": 600, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 1.0}
"""About ten minutes; intervals in seconds."""


@dataclass(frozen=True, slots=True)
class AppSettings:
    """What the app needs to know; times in seconds."""

    redis_url: str
    served_model_name: str
    connect_timeout_seconds: float = 5.0
    socket_timeout_seconds: float = 30.0
    result_expires_seconds: int = 86_400
    soft_time_limit_seconds: float | None = None
    time_limit_seconds: float | None = None


def make_app(settings: AppSettings, leases: Leases | None = None) -> Celery:
    """A Celery app whose worker serves ``fleet.<model>``; stock but for consumer, events and result backend.

    With ``leases`` its results end deliveries of this process, as a worker's must.
    """
    app = Celery("fleet", events="workers.events:FleetEvents", set_as_current=True)
    app.conf.update(_conf(settings))
    app.backend.address, app.backend.leases = settings.redis_url, leases
    register_generate(app)
    return app


def register_generate(app: Celery, name: str = keys.TASK_NAME, **options: Any) -> None:  # noqa: ANN401 - Celery's options
    """Register an engine task: its work is done before it runs, so it only returns or raises the outcome."""

    def generate(*_arguments: object) -> dict[str, Any]:
        outcome = current_outcome.get()
        if isinstance(outcome, GenerationResult):
            return outcome.model_dump(mode="json", exclude_none=True)
        if isinstance(outcome, Failed):
            raise InferenceFailed(outcome.code, outcome.message)
        if isinstance(outcome, Exception):
            raise outcome
        raise TypeError(f"no outcome of a task: {outcome!r}")

    defaults: dict[str, Any] = {
        "name": name,
        "typing": False,
        # A link_error callback that looks as if it took (request, error, traceback) would be called on the spot instead
        # of being queued; generation has to go through the queue.
        "__header__": staticmethod(_one_argument),
        "shared": False,  # of this app alone: another app of this process may have its own
        "Request": "workers.consumer:DecodedRequest",
        "throws": (InferenceFailed, SoftTimeLimitExceeded),
        "resultrepr_maxsize": 64,  # nobody sees it: workers/pool/short_trace.py says what monitors are told
    }
    app.task(**(defaults | options))(generate)


def _one_argument(request: object) -> None:
    """What Celery is to believe of a generation task's parameters."""


def _conf(settings: AppSettings) -> dict[str, Any]:
    timeouts = {
        "socket_timeout": settings.socket_timeout_seconds,
        "socket_connect_timeout": settings.connect_timeout_seconds,
    }
    transport_options = timeouts | {
        "priority_steps": sorted(keys.PRIORITY_STEPS.values()),
        "queue_order_strategy": "priority",
    }
    return broker_settings(settings.redis_url, transport_options, settings.connect_timeout_seconds) | {
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # for ever: an operator sleeps
        # Jobs go on while Redis is away; their results wait.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "result_backend": f"workers.backend:FleetBackend+{backend_url(settings.redis_url)}",
        "result_backend_transport_options": timeouts,
        "redis_socket_timeout": settings.socket_timeout_seconds,
        "redis_socket_connect_timeout": settings.connect_timeout_seconds,
        # One for all threads: the group that a finisher holds back is the backend's, and it is per thread there.
        "result_backend_thread_safe": True,
        "result_expires": settings.result_expires_seconds,
        "result_serializer": "json",
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": keys.queue(settings.served_model_name),
        "task_acks_late": True,
        # Chains and links are published by finishers: Redis away for minutes must not fail a job that succeeded.
        "task_publish_retry_policy": PUBLISH_RETRY_POLICY,
        "task_inherit_parent_priority": True,
        "task_send_sent_event": True,
        "task_soft_time_limit": settings.soft_time_limit_seconds,
        "task_time_limit": settings.time_limit_seconds,
        # Credit is counted from what the process holds, whatever connection it came through.
        "worker_enable_prefetch_count_reduction": False,
        "worker_consumer": "workers.consumer:FleetConsumer",
        "worker_prefetch_multiplier": 1,
        "worker_send_task_events": True,
        # Celery's stand-in for stdout has no fileno, and vLLM's EngineCore dies of that when it is started.
        "worker_redirect_stdouts": False,
        "worker_hijack_root_logger": False,
    }
