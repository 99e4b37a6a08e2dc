"""The process of one engine in a calibration: no Redis, no jobs; loads it when told, and says what it made.

Started as ``python -m workers.calibrating``, with ``CUDA_VISIBLE_DEVICES`` set before this file is read. Reads a
:class:`workers.calibration.load.Phase` per line on stdin, answers on stdout, and ends with its stdin.
"""

import argparse
import dataclasses
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Final, TextIO

from config.errors import SettingsError
from config.loading import load_settings
from config.settings import Settings
from workers.calibration.contender import Answer, Failure, Ready, Speed
from workers.calibration.load import JobMix, Load, Phase
from workers.engine.base import EngineError, EngineOptionsInvalid
from workers.engine.entrance import Patience
from workers.engine.host import EngineHost
from workers.exit_codes import EXIT_CONFIGURATION, EXIT_ENGINE, EXIT_OK
from workers.from_settings import make_engine
from workers.logs import set_up_logging
from workers.parent import end_with_parent
from workers.supervisor import OVERRIDES_VARIABLE

log = logging.getLogger(__name__)

GRACE_SECONDS: Final = 30.0
"""Beyond the phase: a step that takes long, and aborting what still runs."""


def main() -> int:
    """Start the engine, serve phases, end."""
    end_with_parent()
    given = _parse(sys.argv[1:])
    # What libraries print belongs to the log; only answers go to whoever reads our stdout.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if given.cores:
        os.sched_setaffinity(0, {int(core) for core in given.cores.split(",")})
    try:
        overrides = json.loads(os.environ.get(OVERRIDES_VARIABLE, "{}"))
        settings = load_settings(config_file=given.config, environ=os.environ, overrides=overrides).settings
        set_up_logging(settings.log.level)
        host = _host(settings, given.engines_on_device)
    except SettingsError as error:
        _say(answers, Failure(str(error), is_final=True))
        return EXIT_CONFIGURATION
    try:
        host.start(settings.model.served_as)
        capacity = host.engine.capacity()
        _say(answers, Ready(capacity.max_num_seqs, capacity.max_model_len, capacity.kv_cache_tokens))
        _serve(host, settings, answers)
    except EngineError as error:
        _say(answers, Failure(str(error), is_final=isinstance(error, EngineOptionsInvalid)))
        return EXIT_ENGINE
    finally:
        host.close()
    return EXIT_OK


def _serve(host: EngineHost, settings: Settings, answers: TextIO) -> None:
    patience = Patience(settings.worker.refill_max_wait_ms / 1000)
    mix = JobMix(settings.model.served_as, host.engine.capacity().max_model_len, host.bytes_per_token)
    for line in sys.stdin:
        phase = Phase(**json.loads(line))
        load = Load(host.engine, mix, phase, patience)
        left_seconds = phase.end_at - time.monotonic() + GRACE_SECONDS
        try:
            _say(answers, Speed(host.run(load.tokens_per_second(), left_seconds)))
        except TimeoutError:
            _say(answers, Failure(host.death or f"no answer {GRACE_SECONDS:g} s after the end of the load"))
            return


def _host(settings: Settings, engines_on_device: int) -> EngineHost:
    return EngineHost(
        make_engine(settings, engines_on_device),
        start_timeout_seconds=settings.engine.start_timeout_seconds,
        health_interval_seconds=settings.engine.health_interval_seconds,
        health_timeout_seconds=settings.engine.hang_timeout_seconds,
    )


def _say(answers: TextIO, answer: Answer) -> None:
    print(json.dumps(dataclasses.asdict(answer)), file=answers, flush=True)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers.calibrating", description=__doc__)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--engines-on-device", type=int, default=1)
    parser.add_argument("--cores", default="", help="numbers with commas")
    return parser.parse_args(argv)


if __name__ == "__main__":
    exit_code = main()
    sys.stderr.flush()
    # Not sys.exit: a thread stuck in a dead engine must not keep the GPU.
    os._exit(exit_code)
