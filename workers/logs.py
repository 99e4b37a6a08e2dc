"""What is particular to workers: vLLM's processes log as we do, and errors that end a process are lines too.

How lines look, and where they go: :mod:`producer.logs`.
"""

import json
import logging
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Final

from producer.logs.forms import formatter_of
from producer.logs.handlers import StderrLines
from producer.logs.options import FORMAT_VARIABLE, LEVEL_VARIABLE, LogFormat, LogLevel, LogOptions
from producer.logs.setting_up import is_fit, set_up_logging, speaks_json

log = logging.getLogger(__name__)

ENGINE_VARIABLE: Final = "FLEET_ENGINE_LOG"
"""How the processes that vLLM starts are to log, as JSON; set by the worker, for them alone."""
VLLM_SWITCH: Final = "VLLM_CONFIGURE_LOGGING"
VLLM_FILE: Final = "VLLM_LOGGING_CONFIG_PATH"
VLLM_LEVEL: Final = "VLLM_LOGGING_LEVEL"
CONFIGURATION: Final = Path(__file__).with_name("vllm_logging.json")
"""What vLLM hands to ``logging.config`` in each of its processes."""


def set_up_worker_logging(options: LogOptions, process: str, *, model: str, worker: str) -> None:
    """In a process that holds an engine; its supervisor writes the file.

    Raises:
        InvalidRequest: a package is missing.
    """
    set_up_logging(options, process, file=None, model=model, worker=worker)
    if VLLM_SWITCH in os.environ or VLLM_FILE in os.environ:
        return  # the operator wants it otherwise
    how = {LEVEL_VARIABLE: options.log_level, FORMAT_VARIABLE: options.log_format}
    told = how | {"fixed": {"process": process, "model": model, "worker": worker}}
    os.environ[ENGINE_VARIABLE], os.environ[VLLM_FILE] = json.dumps(told), str(CONFIGURATION)


def engine_handler() -> logging.Handler:
    """The handler that :data:`CONFIGURATION` names, made in each of vLLM's processes; sets levels too."""
    told = json.loads(os.environ[ENGINE_VARIABLE])
    options = LogOptions(log_level=LogLevel(told[LEVEL_VARIABLE]), log_format=LogFormat(told[FORMAT_VARIABLE]))
    handler = StderrLines()
    is_child = multiprocessing.parent_process() is not None
    handler.setFormatter(formatter_of(options, told["fixed"] | ({"process": "engine"} if is_child else {})))
    handler.addFilter(is_fit)
    logging.getLogger().setLevel(options.log_level.value)
    levels = logging.getLevelNamesMapping()
    own = levels.get(os.environ.get(VLLM_LEVEL, "").upper(), logging.NOTSET)
    logging.getLogger("vllm").setLevel(max(own, levels[options.log_level.value]))
    logging.captureWarnings(capture=True)
    return handler


def last_words(sentence: str) -> None:
    """Say why this process ends; also when logging is not set up."""
    if speaks_json():
        log.critical("%s", sentence, extra={"action": "process_ended"})
    else:
        print(sentence, file=sys.stderr, flush=True)  # noqa: T201 - for the person who started it
