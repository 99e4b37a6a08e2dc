"""``fleet exporter``: the fleet's own figures for Prometheus, and the truth for Flower."""

import logging
import os
import signal
import threading

import typer
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

from config.errors import SettingsError
from config.loading import load_settings
from config.settings import Settings
from config.variables import variables
from producer.errors import InvalidRequest
from producer.logs.options import LogOptions
from producer.logs.setting_up import set_up_logging
from workers.commands.fleet_options import ConfigOption, RedisOption
from workers.exit_codes import EXIT_CONFIGURATION
from workers.exporter.look import Lookout
from workers.exporter.reconciler import Reconciler
from workers.exporter.series import FleetCollector
from workers.from_settings import connection
from workers.logs import last_words
from workers.observe.http import PageServer, PortTaken, metrics_page, status_page

log = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="exporter")(exporter)


def exporter(config: ConfigOption = None, redis_url: RedisOption = None, port: int | None = None) -> None:
    """Serve what no single worker knows: queues, ages, backlog, ready workers, dead letters, webhooks, Redis.

    Jobs of workers that were killed are told to Flower, which would show them as running for ever.
    """
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    overrides = {"redis.url": redis_url, "exporter.port": port}
    try:
        settings = load_settings(config_file=config, environ=os.environ, overrides=overrides).settings
        set_up_logging(LogOptions.of_environment(variables(settings, "log")), "exporter", file="exporter")
        serve(settings, stopped)
    except (SettingsError, PortTaken, InvalidRequest) as error:
        last_words(f"fleet exporter: {error}")
        raise typer.Exit(EXIT_CONFIGURATION) from error


def serve(settings: Settings, stopped: threading.Event) -> None:
    """Until ``stopped`` is set.

    Raises:
        PortTaken: its port cannot be listened on.
    """
    registry = CollectorRegistry()
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)
    registry.register(FleetCollector(Lookout(connection(settings.redis))))
    pages = {"/metrics": metrics_page(registry), "/health": status_page(lambda: True, dict)}
    server = PageServer(settings.exporter.host, settings.exporter.port, pages, "exporter.port")
    log.info("metrics on %s:%d", settings.exporter.host, settings.exporter.port, extra={"action": "exporter_ready"})
    every_seconds = settings.exporter.reconcile_seconds
    reconciler = Reconciler(settings.redis.url, connection(settings.redis), every_seconds) if every_seconds else None
    if reconciler is not None:
        reconciler.start()
    stopped.wait()
    if reconciler is not None:
        reconciler.stop()
    server.close()
