"""The process of one engine in a calibration: no Redis, no jobs; loads it when told, and says what it made.

Started as ``python -m workers.calibrating``, with ``CUDA_VISIBLE_DEVICES`` set before this file is read. Reads a
:class:`workers.calibration.load.Phase` per line on stdin, answers on stdout, and ends with its stdin.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Final, TextIO

from config.errors import SettingsError
from config.loading import load_settings
from config.settings import Settings
from config.variables import variables
from producer.logs.options import LogOptions
from workers.calibration.contender import Answer, Failure, Ready, Speed
from workers.calibration.load import JobMix, Load, Phase
from workers.engine.base import EngineError, EngineOptionsInvalid
from workers.engine.entrance import Patience
from workers.engine.host import EngineHost
from workers.exit_codes import EXIT_CONFIGURATION, EXIT_ENGINE, EXIT_OK
from workers.from_settings import make_host
from workers.logs import set_up_worker_logging
from workers.parent import add_parent_option, answers_to_parent, end_with_parent
from workers.supervisor import overrides_of

GRACE_SECONDS: Final = 30.0
"""Beyond the phase: a step that takes long, and aborting what still runs."""


def main() -> int:
    """Start the engine, serve phases, end."""
    given = _parse(sys.argv[1:])
    end_with_parent(given.parent)
    answers = answers_to_parent()
    if given.cores:
        os.sched_setaffinity(0, {int(core) for core in given.cores.split(",")})
    try:
        overrides = overrides_of(os.environ)
        settings = load_settings(config_file=given.config, environ=os.environ, overrides=overrides).settings
        options, served = LogOptions.of_environment(variables(settings, "log")), settings.model.served_as
        set_up_worker_logging(options, "calibration", model=served, worker="")
        host = make_host(settings, given.engines_on_device)
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


def _say(answers: TextIO, answer: Answer) -> None:
    print(json.dumps(dataclasses.asdict(answer)), file=answers, flush=True)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers.calibrating", description=__doc__)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--engines-on-device", type=int, default=1)
    parser.add_argument("--cores", default="", help="numbers with commas")
    add_parent_option(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    exit_code = main()
    sys.stderr.flush()
    # Not sys.exit: a thread stuck in a dead engine must not keep the GPU.
    os._exit(exit_code)
