"""From the settings to the parts that a worker process is made of."""

import os

import psutil
from redis import Redis

from config.settings import RedisSettings, Settings
from producer.redis_client import connect
from workers.app import AppSettings
from workers.cpu_defaults import with_cpu_defaults
from workers.engine.base import Engine, EngineConfig
from workers.transport.lease_store import LeasePolicy
from workers.transport.service import Consumption


def make_engine(settings: Settings) -> Engine:
    """The engine, not started."""
    revision = {"revision": settings.model.revision} if settings.model.revision else {}
    options = dict(settings.engine.options) | revision
    if settings.engine.kind == "simulated":
        from workers.engine.simulated import SimulatedEngine

        return SimulatedEngine(EngineConfig(settings.model.name, settings.model.served_as, options))
    from workers.engine.vllm_engine import VllmEngine

    if not os.environ.get("CUDA_VISIBLE_DEVICES"):
        options = with_cpu_defaults(options, os.environ, psutil.virtual_memory().available)
    return VllmEngine(EngineConfig(settings.model.name, settings.model.served_as, options))


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
