"""From the settings to the parts that a worker process is made of."""

import os
from typing import Any, Final

import psutil
from redis import Redis

from config.settings import RedisSettings, Settings
from producer.redis_client import connect
from workers.app import AppSettings
from workers.cpu_defaults import OWN_KV_CACHE_VARIABLE, with_cpu_defaults
from workers.engine.base import Engine, EngineConfig
from workers.memory_share import gpu_share, machine_share
from workers.observe.gpu_memory import gpu_memory_bytes
from workers.transport.lease_store import LeasePolicy
from workers.transport.service import Consumption

GIB: Final = 1024**3


def make_engine(settings: Settings, engines_on_device: int = 1) -> Engine:
    """The engine, not started; one of so many that share its GPU, or the machine's CPU."""
    revision = {"revision": settings.model.revision} if settings.model.revision else {}
    options = dict(settings.engine.options) | revision
    if settings.engine.kind == "simulated":
        from workers.engine.simulated import SimulatedEngine

        return SimulatedEngine(EngineConfig(settings.model.name, settings.model.served_as, options))
    from workers.engine.vllm_engine import VllmEngine

    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0]
    if gpu:
        options = gpu_share(options, engines_on_device, gpu_memory_bytes(gpu))
    else:
        options = _options_on_cpu(options, engines_on_device)
    return VllmEngine(EngineConfig(settings.model.name, settings.model.served_as, options))


def _options_on_cpu(options: dict[str, Any], engines: int) -> dict[str, Any]:
    if engines > 1 and os.environ.get(OWN_KV_CACHE_VARIABLE, "").isdigit():
        # vLLM prefers the variable over the option, and would give all of it to each engine.
        options = options | {"kv_cache_memory_bytes": int(os.environ.pop(OWN_KV_CACHE_VARIABLE)) * GIB}
    return machine_share(with_cpu_defaults(options, os.environ, psutil.virtual_memory().available), engines)


def connection(settings: RedisSettings, *, retries: int = 1) -> Redis:
    """A client of the fleet's Redis, not connected yet; ``retries`` of a command whose connection was cut."""
    return connect(
        settings.url,
        connect_timeout_seconds=settings.connect_timeout_seconds,
        socket_timeout_seconds=settings.socket_timeout_seconds,
        retries=retries,
    )


def concurrency(settings: Settings, engine: Engine) -> int:
    """Jobs in the pool: what the engine runs at once, and a little more so that a free slot is refilled at once."""
    slots = engine.capacity().max_num_seqs
    return settings.worker.concurrency or slots + max(1, int(slots * settings.worker.concurrency_headroom))


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
    return Consumption(
        model=settings.model.served_as,
        worker=worker,
        slots=concurrency(settings, engine),
        batch_max_jobs=settings.worker.batch_max_jobs,
        policy=LeasePolicy(
            settings.worker.lease_seconds, settings.worker.max_deliveries, settings.results.job_record_seconds
        ),
    )
