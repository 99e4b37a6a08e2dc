"""From the settings to the parts that a worker process is made of."""

import logging
import os
from collections.abc import Mapping
from typing import Any, Final

import psutil
from redis import Redis

from config.errors import SettingsError
from config.settings import RedisSettings, Settings
from producer.redis_client import connect
from workers.app import AppSettings
from workers.cpu_defaults import OWN_KV_CACHE_VARIABLE, with_cpu_defaults
from workers.engine.base import Engine, EngineConfig
from workers.engine.host import EngineHost
from workers.first_tokens import ALONE, FirstTokens
from workers.memory_share import gpu_share, machine_share
from workers.observe.gpu_memory import gpu_memory_bytes
from workers.pool.grouping import Refill
from workers.pool.runner import BatchLimits
from workers.transport.appetite import Appetite
from workers.transport.drain_policy import DrainPolicy
from workers.transport.lease_store import LeasePolicy
from workers.transport.service import Consumption

log = logging.getLogger(__name__)

GIB: Final = 1024**3
VLLM_DEFAULTS: Final[dict[str, Any]] = {"scheduling_policy": "priority", "trust_remote_code": False}
"""Engine options of every vLLM, unless the operator sets them: inside the engine too, a job's lane is its priority; and
no code that comes with a model is run."""
SEQUENCES_PER_RESERVED: Final = 8
"""At most one sequence in so many is reserved for interactive jobs."""


def make_host(settings: Settings, engines_on_device: int = 1, first_tokens: FirstTokens = ALONE) -> EngineHost:
    """That engine in its host, not started.

    Raises:
        SettingsError: as :func:`make_engine`.
    """
    return EngineHost(
        make_engine(settings, engines_on_device, first_tokens),
        start_timeout_seconds=settings.engine.start_timeout_seconds,
        health_interval_seconds=settings.engine.health_interval_seconds,
        health_timeout_seconds=settings.engine.hang_timeout_seconds,
    )


def make_engine(settings: Settings, engines_on_device: int = 1, first_tokens: FirstTokens = ALONE) -> Engine:
    """The engine, not started; one of so many that share its GPU, or the machine's CPU."""
    revision = {"revision": settings.model.revision} if settings.model.revision else {}
    options = dict(settings.engine.options) | revision
    if settings.worker.lanes == "all":
        options |= _with_reserve(options, settings.worker.interactive_reserve)
    if settings.engine.kind == "simulated":
        from workers.engine.simulated import SimulatedEngine

        return SimulatedEngine(_engine_config(settings, options, first_tokens))
    from workers.engine.vllm_engine import VllmEngine

    options = VLLM_DEFAULTS | options
    if options["trust_remote_code"]:
        log.warning("the model's own code is run: engine.options.trust_remote_code", extra={"action": "code_trusted"})
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0]
    if gpu:
        options = gpu_share(options, engines_on_device, gpu_memory_bytes(gpu))
    else:
        options = _options_on_cpu(options, engines_on_device, len(settings.model.adapters))
    return VllmEngine(_engine_config(settings, options, first_tokens))


def _engine_config(settings: Settings, options: Mapping[str, Any], first_tokens: FirstTokens) -> EngineConfig:
    return EngineConfig(
        settings.model.name,
        settings.model.served_as,
        options,
        settings.worker.refill_jobs,
        settings.engine.tool_call_parser,
        settings.model.adapters,
        first_tokens,
    )


def _options_on_cpu(options: dict[str, Any], engines: int, adapters: int) -> dict[str, Any]:
    if engines > 1 and os.environ.get(OWN_KV_CACHE_VARIABLE, "").isdigit():
        # vLLM prefers the variable over the option, and would give all of it to each engine.
        options = options | {"kv_cache_memory_bytes": int(os.environ.pop(OWN_KV_CACHE_VARIABLE)) * GIB}
    available_bytes = psutil.virtual_memory().available
    with_defaults = with_cpu_defaults(options, os.environ, available_bytes, adapters)
    if adapters and isinstance(slots := with_defaults["max_loras"], int) and slots <= adapters:
        raise SettingsError(
            f"engine.options.max_loras {slots} with {adapters} adapters: on a CPU vLLM would answer jobs of the model "
            "itself with the adapter in the last slot; leave it out, or set more"
        )
    return machine_share(with_defaults, engines)


def connection(settings: RedisSettings, *, retries: int = 1) -> Redis:
    """A client of the fleet's Redis, not connected yet; ``retries`` of a command whose connection was cut.

    Raises:
        SettingsError: a file that the address names is not there.
    """
    try:
        return connect(
            settings.url,
            connect_timeout_seconds=settings.connect_timeout_seconds,
            socket_timeout_seconds=settings.socket_timeout_seconds,
            retries=retries,
        )
    except ValueError as error:
        raise SettingsError(f"redis.url: {error}") from error


def _with_reserve(options: Mapping[str, Any], reserve: int) -> dict[str, int]:
    """``max_num_seqs`` with the reserve on top, where the operator has set it; nothing otherwise.

    What is no number of sequences is left for the engine to refuse.
    """
    asked, least = options.get("max_num_seqs"), SEQUENCES_PER_RESERVED - 1
    if not isinstance(asked, int) or asked < least:
        return {}
    # Of seven and one more, one is an eighth: so reserved_slots finds again what is added here.
    return {"max_num_seqs": asked + min(reserve, asked // least)}


def reserved_slots(settings: Settings, engine: Engine) -> int:
    """Sequences of the running engine that are for interactive jobs alone."""
    if settings.worker.lanes != "all":
        return engine.capacity().max_num_seqs if settings.worker.lanes == "interactive" else 0
    return min(settings.worker.interactive_reserve, engine.capacity().max_num_seqs // SEQUENCES_PER_RESERVED)


def common_slots(settings: Settings, engine: Engine) -> int:
    """Sequences of the running engine that every lane may use."""
    return engine.capacity().max_num_seqs - reserved_slots(settings, engine)


def concurrency(settings: Settings, engine: Engine) -> int:
    """Jobs in the pool: what the engine runs at once, and a little more so that a free slot finds its next job here."""
    common, reserved = common_slots(settings, engine), reserved_slots(settings, engine)
    headroom = max(1, int(common * settings.worker.concurrency_headroom))
    return settings.worker.concurrency or common + headroom + reserved


def app_settings(settings: Settings) -> AppSettings:
    """What the Celery app needs to know."""
    return AppSettings(
        redis_url=settings.redis.url,
        served_model_name=settings.model.served_as,
        connect_timeout_seconds=settings.redis.connect_timeout_seconds,
        socket_timeout_seconds=settings.redis.socket_timeout_seconds,
        result_expires_seconds=settings.results.expires_seconds,
        soft_time_limit_seconds=settings.worker.soft_time_limit_seconds,
        time_limit_seconds=settings.worker.time_limit_seconds,
    )


def consumption(settings: Settings, worker: str, engine: Engine) -> Consumption:
    """What the worker of this node name takes, and how much."""
    slots = concurrency(settings, engine)
    lanes = settings.worker.lanes
    reserved = min(reserved_slots(settings, engine), slots // SEQUENCES_PER_RESERVED)
    return Consumption(
        model=settings.model.served_as,
        worker=worker,
        slots=slots,
        reserved_slots=slots if lanes == "interactive" else reserved,
        takes_urgent=lanes != "others",
        batch_max_jobs=settings.worker.batch_max_jobs,
        capacity=engine.capacity(),
        policy=LeasePolicy(
            settings.worker.lease_seconds,
            settings.worker.max_deliveries,
            settings.results.job_record_seconds,
            DrainPolicy(
                prefix_window_seconds=settings.worker.prefix_window_seconds,
                max_message_bytes=settings.worker.max_message_bytes,
            ),
        ),
        stream_lifetime_seconds=settings.results.stream_expires_seconds,
    )


def batch_limits(settings: Settings, engine: Engine, appetite: Appetite) -> BatchLimits:
    """How the pool fills the engine."""
    worker = settings.worker
    capacity = engine.capacity()
    return BatchLimits(
        max_jobs=worker.batch_max_jobs,
        max_wait_seconds=worker.batch_max_wait_ms / 1000,
        seats=capacity.max_num_seqs,
        reserved_seats=reserved_slots(settings, engine),
        refill=Refill(capacity.refill_jobs, worker.refill_max_wait_ms / 1000, lambda: appetite.is_memory_full),
    )
