"""A model that a worker has served is known to the fleet from then on, worker or not; so are its other names."""

import json
import logging
import time
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Final, cast

import redis

from producer import keys
from producer.errors import InvalidRequest
from producer.registry import adapter_run, alias_run, refuse_alias
from producer.script import ScriptRun

log = logging.getLogger(__name__)

DECLARE_SCRIPT: Final = files("workers").joinpath("declare.lua").read_text(encoding="utf-8")


def record_served_model(client: "redis.Redis", model: str) -> None:
    """Make ``model`` known; what is known already keeps its date."""
    declared = json.dumps({"declared_by": "worker", "since": time.time()})
    client.eval(DECLARE_SCRIPT, 1, keys.MODELS, model, declared)


def record_aliases(client: "redis.Redis", model: str, aliases: Iterable[str]) -> None:
    """Give ``model`` these other names; one that is not free stays as it is, which is logged: its jobs go elsewhere."""
    for alias in aliases:
        reply = _reply(client, alias_run(alias, model, may_move=False))
        try:
            refuse_alias(alias, model, reply)
        except InvalidRequest as error:
            log.error("%s", error, extra={"action": "alias_refused"})  # noqa: TRY400 - it says all


def record_adapters(client: "redis.Redis", model: str, adapters: Iterable[str]) -> None:
    """Let jobs name these adapters of ``model``; a name that is not free stays as it is, which is logged."""
    for adapter in adapters:
        reply = _reply(client, adapter_run(adapter, model))
        try:
            refuse_alias(adapter, model, reply, what="adapter")
        except InvalidRequest as error:
            log.error("%s", error, extra={"action": "adapter_refused"})  # noqa: TRY400 - it says all


def _reply(client: "redis.Redis", run: ScriptRun) -> Sequence[bytes]:
    return cast("Sequence[bytes]", client.eval(run.script.text, len(run.keys), *run.keys, *run.arguments))
