"""``--engines-per-gpu auto``: the number on file, or a calibration."""

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from config.masking import masked
from config.settings import Settings
from workers.builds import engines_of, installed_versions
from workers.calibration.choice import CalibrationFailed, Choice
from workers.calibration.choice_file import Subject, config_digest, default_folder, keep, kept_choice
from workers.calibration.contender import Contender, contender_command
from workers.calibration.measure import Calibration
from workers.cpu_cores import usable_cores
from workers.observe.gpu_memory import gpu_memory_bytes, gpu_name
from workers.output import Output
from workers.placement import Slot, place
from workers.supervisor import OVERRIDES_VARIABLE

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Given:
    """What ``fleet worker`` was started with, and what it found."""

    settings: Settings
    config: Path | None
    overrides: Mapping[str, Any]
    present_gpus: Sequence[str]
    gpus_per_engine: int
    output: Output | None = None
    """Where what engines and workers print goes; None: where this process prints."""

    @property
    def environ(self) -> dict[str, str]:
        """The environment of worker processes.

        The settings travel in it and not on the command line: ps shows that, and there may be a password in them.
        """
        return os.environ | {OVERRIDES_VARIABLE: json.dumps(dict(self.overrides))}

    @property
    def arguments(self) -> list[str]:
        """The command line of worker processes, but for what is theirs alone."""
        return ["--config", str(self.config)] if self.config is not None else []


def engines_per_gpu(given: Given, *, is_forced: bool) -> int:
    """The number that is set; for ``auto`` the one on file, unless ``is_forced``, or the outcome of a calibration.

    One GPU is measured, and all GPUs of a machine are taken to be alike.

    Raises:
        PlacementError: the GPUs do not fit.
    """
    wanted = given.settings.worker.engines_per_gpu
    if isinstance(wanted, int):
        return wanted
    if given.gpus_per_engine > 1:
        _tell(f"1: an engine over {given.gpus_per_engine} GPUs has them to itself")
        return 1
    gpus = place(given.settings.worker.gpus, given.present_gpus, 1)[0].gpus
    if not gpus and len(usable_cores()) == 1:
        _tell("1: the CPU has one core")
        return 1
    subject = _subject(given.settings, gpus)
    folder = Path(given.settings.worker.calibration_folder or default_folder(os.environ)).expanduser()
    choice = None if is_forced else kept_choice(folder, subject)
    if choice is not None:
        _tell(f"{choice.engines_per_gpu}, as measured before ({choice.figures}): {folder / subject.file_name()}")
        return choice.engines_per_gpu
    try:
        with _ended_by_signals():
            choice = _calibrated(given, gpus)
    except CalibrationFailed as error:
        log.warning("engines_per_gpu auto: 1, since calibration failed: %s", error, extra={"action": "calibration"})
        return 1
    _tell(f"{choice.engines_per_gpu} ({choice.figures}): {choice.reason}; {_kept(folder, subject, choice)}")
    return choice.engines_per_gpu


def _calibrated(given: Given, gpus: Sequence[str]) -> Choice:
    command = contender_command(given.arguments)
    _tell("how many is measured now, once: a few minutes, since each engine must load the model")

    def start(slot: Slot) -> Contender:
        return Contender(command, slot, given.environ, given.output)

    calibration = Calibration(gpus, usable_cores(), start=start)
    return calibration.choice()


def _kept(folder: Path, subject: Subject, choice: Choice) -> str:
    try:
        return f"kept in {keep(folder, subject, choice)}"
    except OSError as error:
        return f"not kept, so it is measured again at the next start ({error}): set worker.calibration_folder"


def _subject(settings: Settings, gpus: Sequence[str]) -> Subject:
    return Subject(
        engine=settings.engine.kind,
        model=settings.model.name,
        revision=settings.model.revision,
        config_digest=config_digest(settings.model.name),
        options={name: masked(name, value) for name, value in settings.engine.options.items()}
        | ({"model.lora_adapters": sorted(settings.model.adapters)} if settings.model.adapters else {}),
        refill_jobs=settings.worker.refill_jobs,
        refill_max_wait_ms=settings.worker.refill_max_wait_ms,
        vllm_version=next(iter(engines_of(installed_versions())), ""),
        device=(gpu_name(gpus[0]) or "a GPU that the driver does not name") if gpus else "CPU",
        device_memory_bytes=gpu_memory_bytes(gpus[0]) if gpus else None,
        cores=len(usable_cores()),
    )


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Whoever ends the supervisor ends a calibration too, and its engines with it."""

    def end(_number: int, _frame: FrameType | None) -> None:
        _tell("stopped while it was measured")
        sys.exit(0)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(sentence: str) -> None:
    log.info("engines_per_gpu auto: %s", sentence, extra={"action": "calibration"})
