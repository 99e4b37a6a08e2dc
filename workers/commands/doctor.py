"""``fleet doctor`` of a full install: what the producer's own looks at, and whether this host can serve the model."""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from config.errors import SettingsError
from config.loading import load_settings
from config.settings import Settings
from producer.cli_doctor import examine, finding_lines, queue_lines
from producer.cli_options import takes
from producer.doctor import Finding, Level
from producer.queue_counts import QueueCounts
from workers.builds import gpus_for_build, has_engine, installed_versions, is_cpu_build
from workers.commands.engines_per_gpu import Given
from workers.commands.fleet_options import RedisOption, ServeOptions
from workers.commands.worker import gpus_per_engine
from workers.doctor.gpu_findings import gpu_findings
from workers.doctor.host_findings import host_findings, port_findings
from workers.doctor.model_findings import model_findings
from workers.doctor.nvidia import DriverSilent, Gpu, installed_gpus, processes
from workers.doctor.packages import import_finding, package_findings
from workers.doctor.plan import Plan, failing
from workers.doctor.trial import generation_finding
from workers.placement import PlacementError, Slot, place, present_gpus

TRIAL_GRACE_SECONDS = 180.0
"""Beyond the engine's start: the generation, and ending it."""


@dataclass(frozen=True, slots=True)
class DoctorOptions(ServeOptions):
    """What ``fleet doctor`` takes."""

    redis_url: RedisOption = None
    redis_only: Annotated[bool, typer.Option("--redis-only", help="Only what concerns Redis, as without vLLM.")] = False
    generate: Annotated[bool, typer.Option("--generate", help="Load the model and generate a few tokens too.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="JSON, for programs.")] = False

    def overrides(self) -> dict[str, Any]:
        """As :meth:`FleetOptions.overrides`, with the server's address.

        Raises:
            SettingsError: a ``--set`` is not ``name=value``.
        """
        # The decorator's slots=True makes another class, so super() without arguments would not find it.
        given = ServeOptions.overrides(self)
        return given | ({"redis.url": self.redis_url} if self.redis_url else {})


def register(app: typer.Typer) -> None:
    """Take the place of the producer's command, of which this one does all and more."""
    app.command(name="doctor")(doctor)


@takes(DoctorOptions)
def doctor(options: DoctorOptions) -> None:
    """Check Redis, and whether this host can serve the model; each finding says what to do; exit code 1: one fails."""
    findings, queues = _examined(options)
    if options.as_json:
        content = {
            "findings": [dataclasses.asdict(finding) for finding in findings],
            "queues": [dataclasses.asdict(queue) for queue in queues],
        }
        typer.echo(json.dumps(content, indent=2))
    else:
        for line in (*finding_lines(findings), *queue_lines(queues)):
            typer.echo(line)
    if any(finding.level is Level.REFUSED for finding in findings):
        raise typer.Exit(1)


def _examined(options: DoctorOptions) -> tuple[list[Finding], list[QueueCounts]]:
    try:
        overrides = options.overrides()
        settings = load_settings(config_file=options.config, environ=os.environ, overrides=overrides).settings
    except SettingsError as error:
        return [failing("settings", str(error))], []
    findings, queues = examine(settings.redis.url)
    if not options.redis_only:
        findings += _host(settings, options, overrides)
    return findings, queues


def _host(settings: Settings, options: DoctorOptions, overrides: dict[str, Any]) -> Iterator[Finding]:
    try:
        gpus = installed_gpus()
    except DriverSilent as error:
        yield failing("driver", f"{error}; reboot after an update of the driver, or install it again")
        gpus = []
    versions = installed_versions()
    if settings.engine.kind == "vllm":
        yield from package_findings(versions, gpus)
    if settings.engine.kind == "vllm" and not has_engine(versions) and not gpus:
        yield from port_findings(_plan(settings, [Slot(0, ())]))
        return
    try:
        slots = _slots(settings, versions)
    except (PlacementError, SettingsError) as error:
        yield failing("gpus", str(error))
        return
    if gpus and is_cpu_build(versions):
        gpus = None  # said of the package: they stay idle
    plan = _plan(settings, slots)
    yield from _engine_findings(plan, gpus, versions) if settings.engine.kind == "vllm" else ()
    yield from host_findings(plan)
    if options.generate:
        yield _generation(settings, options, slots[0], overrides)


def _engine_findings(plan: Plan, gpus: Sequence[Gpu] | None, versions: Mapping[str, str]) -> Iterable[Finding]:
    if has_engine(versions):
        yield import_finding()
    yield from gpu_findings(plan, gpus, processes() if gpus else ())
    yield from model_findings(plan, gpus)


def _slots(settings: Settings, versions: Mapping[str, str]) -> list[Slot]:
    """Where the engines go, as ``fleet worker`` would put them; ``auto`` counts as one per GPU, which always fits."""
    shared = settings.worker.engines_per_gpu
    gpus: Sequence[str] = present_gpus(os.environ)
    if settings.engine.kind == "vllm" and is_cpu_build(versions):  # of another build the package findings say it
        gpus = gpus_for_build(settings.worker.gpus, gpus, versions)
    return place(
        settings.worker.gpus,
        gpus,
        gpus_per_engine(settings.engine.options),
        shared if isinstance(shared, int) else 1,
    )


def _plan(settings: Settings, slots: Sequence[Slot]) -> Plan:
    metrics = settings.metrics
    ports = {"metrics.port" if not slot.index else f"metrics.port (+{slot.index})": slot.index for slot in slots}
    return Plan(
        model=settings.model.name,
        revision=settings.model.revision,
        options=settings.engine.options,
        adapters=settings.model.adapters,
        engines=tuple(slot.gpus for slot in slots),
        engines_on_device=slots[0].engines_on_device,
        ports={name: (metrics.host, metrics.port + offset) for name, offset in ports.items()}
        | {
            "flower.port": (settings.flower.host, settings.flower.port),
            "gateway.port": (settings.gateway.host, settings.gateway.port),
            "exporter.port": (settings.exporter.host, settings.exporter.port),
        },
    )


def _generation(settings: Settings, options: DoctorOptions, slot: Slot, overrides: dict[str, Any]) -> Finding:
    if not settings.model.served_as:
        return failing("generation", "no model: name one with --model, FLEET_MODEL, or model.name in fleet.toml")
    given = Given(settings, options.config, overrides, slot.gpus, len(slot.gpus))
    shared = ["--engines-on-device", str(slot.engines_on_device)] if slot.engines_on_device > 1 else []
    timeout_seconds = settings.engine.start_timeout_seconds + TRIAL_GRACE_SECONDS
    return generation_finding([*given.arguments, *shared], slot.environment(given.environ), timeout_seconds)
