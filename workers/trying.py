"""The process of ``fleet doctor --generate``: no Redis, no jobs; loads the engine, generates once, says how it went.

Started as ``python -m workers.trying``, with ``CUDA_VISIBLE_DEVICES`` set before this file is read.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Final

from config.errors import SettingsError
from config.loading import load_settings
from config.settings import Settings
from config.variables import variables
from producer.contract import GenerationRequest, SamplingOptions
from producer.logs.options import LogOptions
from workers.doctor.trial import Generated
from workers.engine.base import EngineError, EngineRequest
from workers.engine.host import EngineHost
from workers.exit_codes import EXIT_CONFIGURATION, EXIT_ENGINE, EXIT_OK
from workers.from_settings import make_host
from workers.logs import set_up_worker_logging
from workers.parent import add_parent_option, answers_to_parent, end_with_parent
from workers.supervisor import overrides_of

TOKENS: Final = 16
PROMPT: Final = "A queue keeps work in order until"
ANSWER_SECONDS: Final = 120.0


def main() -> int:
    """Start the engine, generate, end."""
    given = _parse(sys.argv[1:])
    end_with_parent(given.parent)
    answers = answers_to_parent()
    try:
        overrides = overrides_of(os.environ)
        settings = load_settings(config_file=given.config, environ=os.environ, overrides=overrides).settings
        options, served = LogOptions.of_environment(variables(settings, "log")), settings.model.served_as
        set_up_worker_logging(options, "trial", model=served, worker="")
        generated, code = _generated(settings, given.engines_on_device), EXIT_OK
    except SettingsError as error:
        generated, code = Generated(failure=str(error)), EXIT_CONFIGURATION
    except (EngineError, TimeoutError) as error:
        generated, code = Generated(failure=str(error) or f"no answer in {ANSWER_SECONDS:g} s"), EXIT_ENGINE
    print(json.dumps(dataclasses.asdict(generated)), file=answers, flush=True)
    return code


def _generated(settings: Settings, engines_on_device: int) -> Generated:
    host = make_host(settings, engines_on_device)
    begun = time.monotonic()
    try:
        host.start(settings.model.served_as)
        loaded = time.monotonic()
        tokens = host.run(_count(host, settings.model.served_as), ANSWER_SECONDS)
        return Generated(tokens, loaded - begun, time.monotonic() - loaded)
    finally:
        host.close()


async def _count(host: EngineHost, model: str) -> int:
    sampling = SamplingOptions(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
    request = GenerationRequest(model=model, prompt=PROMPT, sampling=sampling)
    tokens = 0
    async for increment in host.engine.generate(EngineRequest("doctor", request)):
        tokens += sum(choice.token_count for choice in increment.choices)
    return tokens


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers.trying", description=__doc__)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--engines-on-device", type=int, default=1)
    add_parent_option(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    exit_code = main()
    sys.stderr.flush()
    # Not sys.exit: a thread stuck in a dead engine must not keep the GPU.
    os._exit(exit_code)
