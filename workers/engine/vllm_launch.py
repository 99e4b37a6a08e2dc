"""From an engine configuration to a running AsyncLLM, or to the reason why there is none."""

import dataclasses
import multiprocessing
import os
import tempfile
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from producer.strict import unknown_name
from workers.engine.adapters import adapter_options
from workers.engine.base import EngineConfig, EngineOptionsInvalid, EngineStartFailed
from workers.engine.vllm_child import (
    ENGINE_CORE,
    FAILURE_FILE_VARIABLE,
    START_METHOD_VARIABLE,
)
from workers.engine.vllm_failure import cause_in_one_line
from workers.engine.vllm_tools import parser_class
from workers.first_tokens import ALONE

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

OWN_FIELDS: Final = ("model", "served_model_name")
"""Fields of ``AsyncEngineArgs`` that the configuration has a place of its own for."""

OPTIONS_REFUSED: Final = (ValueError, TypeError, NotImplementedError)
"""What vLLM raises for an option that it refuses (pydantic's ValidationError is a ValueError)."""


ABANDON_SECONDS: Final = 10.0
"""How long an abandoned launch may take to end."""


class Launch:
    """A start in a thread of its own, so that the loop stays alive and an endless start can be given up."""

    def __init__(self, config: EngineConfig) -> None:
        self.ended: Future[None] = Future()
        """Done when the engine runs; raises what :func:`launch` raised."""
        self._config = config
        self._llm: AsyncLLM | None = None
        # vLLM's processes write into it why they ended: while they start, and as long as they run.
        self._folder = tempfile.TemporaryDirectory(prefix="fleet-engine-", ignore_cleanup_errors=True)
        self._report = Path(self._folder.name) / "failure"
        self._others = {child.pid for child in multiprocessing.active_children()}
        # A daemon: a download that never ends must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="engine-launch", daemon=True)
        self.ended.set_running_or_notify_cancel()
        self._thread.start()

    def _run(self) -> None:
        try:
            self._llm = launch(self._config, self._report)
            self.ended.set_result(None)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the end is awaited
            self.ended.set_exception(error)

    def taken(self) -> "AsyncLLM":
        """The running engine; whoever takes it shuts it down.

        Raises:
            EngineStartFailed: there is none.
        """
        llm, self._llm = self._llm, None
        if llm is None:
            raise EngineStartFailed("the engine was already taken or never ran")
        return llm

    def cause_of_death(self) -> str | None:
        """Why vLLM's processes ended, on one line, and what to change; None when they could not say (killed)."""
        return _first_line(self._report)

    def forget(self) -> None:
        """Remove what the processes wrote."""
        self._folder.cleanup()

    def abandon(self) -> None:
        """End a start that nobody waits for, with its processes; blocks for :data:`ABANDON_SECONDS` at most."""
        for child in multiprocessing.active_children():
            if child.name.startswith(ENGINE_CORE) and child.pid not in self._others:
                child.kill()
        self._thread.join(ABANDON_SECONDS)
        if self._llm is not None:
            self.taken().shutdown()


def launch(config: EngineConfig, report: Path) -> "AsyncLLM":
    """Start the engine and wait until the model is loaded; blocks for as long as that takes.

    ``report`` is where its processes write why they end.

    Raises:
        EngineOptionsInvalid: an option is unknown or refused.
        EngineStartFailed: anything else.
    """
    # This process has threads and connections that a fork would copy in the middle of whatever they do.
    os.environ.setdefault(START_METHOD_VARIABLE, "spawn")
    from vllm.v1.engine.async_llm import AsyncLLM

    parser_class(config.tool_call_parser)  # before the model is loaded: there may be none of this name
    arguments, vllm_config = configured(config)
    own = {FAILURE_FILE_VARIABLE: str(report)} | _with_first_tokens(config, vllm_config)
    os.environ.update(own)
    try:
        return AsyncLLM.from_vllm_config(
            vllm_config,
            enable_log_requests=arguments.enable_log_requests,
            disable_log_stats=arguments.disable_log_stats,
        )
    except Exception as error:
        # vLLM's exception in this process only says that another process failed; the first that did knows why.
        raise EngineStartFailed(_first_line(report) or cause_in_one_line(error)) from error
    finally:
        for name in own:
            del os.environ[name]


def configured(config: EngineConfig) -> "tuple[AsyncEngineArgs, VllmConfig]":
    """The arguments and what vLLM makes of them; options keep vLLM's defaults unless they are set."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext

    known: dict[str, Any] = {field.name: field for field in dataclasses.fields(AsyncEngineArgs)}
    for name in config.options:
        if name in OWN_FIELDS:
            raise EngineOptionsInvalid(f"engine option {name!r} is not set here: the worker has a setting for it")
        if name not in known:
            raise EngineOptionsInvalid(unknown_name("engine option", name, known))
    if config.model.startswith(("/", "./", "../")) and not Path(config.model).exists():
        raise EngineStartFailed(f"the model folder {config.model!r} does not exist: change model")
    options = adapter_options(config.lora_adapters, config.options)
    try:
        arguments = AsyncEngineArgs(model=config.model, served_model_name=config.served_model_name, **options)
        return arguments, arguments.create_engine_config(UsageContext.ENGINE_CONTEXT)
    except OPTIONS_REFUSED as error:
        raise EngineOptionsInvalid(cause_in_one_line(error)) from error
    except Exception as error:
        raise EngineStartFailed(cause_in_one_line(error)) from error


def _with_first_tokens(config: EngineConfig, vllm_config: "VllmConfig") -> dict[str, str]:
    """Let the scheduler take part in it; the environment that it needs.

    Raises:
        EngineOptionsInvalid: the scheduler is another one.
    """
    if config.first_tokens == ALONE:
        return {}
    from workers.engine.vllm_scheduler import scheduler_class, variables

    schedule = vllm_config.scheduler_config
    if schedule.scheduler_cls is not None:
        raise EngineOptionsInvalid(
            f"engine option scheduler_cls {schedule.scheduler_cls}: worker.others_yield needs a scheduler of its own; "
            "leave one of them out"
        )
    schedule.scheduler_cls = scheduler_class(config.first_tokens, is_async=bool(schedule.async_scheduling))
    return variables(config.first_tokens)


def _first_line(report: Path) -> str | None:
    lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    return lines[0] if lines else None
