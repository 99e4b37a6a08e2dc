"""Who is there to answer: readiness for probes, and what is known of a model."""

from collections.abc import Sequence
from dataclasses import asdict
from time import monotonic
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from producer.async_client import AsyncProducer
from producer.errors import UnknownModel
from producer.gateway.callers import Known
from producer.gateway.errors import BadParameter
from producer.gateway.openai_routes import Fleet
from producer.presence import WorkerPresence

KEPT_SECONDS: Final = 1.0
"""How long what was found is kept for probes, which anybody may send, any number of them."""

router = APIRouter()

Model = Annotated[str | None, Query(description="A model's name; without it all of them.")]


class Readiness:
    """Ready workers by model, asked of Redis once a second at most."""

    def __init__(self, producer: AsyncProducer) -> None:
        self._producer = producer
        self._ready: dict[str, int] = {}
        self._aliases: dict[str, str] = {}
        self._kept_until = 0.0

    async def ready_workers(self) -> dict[str, int]:
        """By model; models that are known and have none are among them.

        Raises:
            FleetUnreachable: nobody knows.
        """
        if monotonic() >= self._kept_until:
            workers = await self._producer.workers()
            known = await self._producer.models()
            self._aliases = await self._producer.aliases()
            self._ready = {model: _count_ready(workers, model) for model in {*known, *(one.model for one in workers)}}
            self._kept_until = monotonic() + KEPT_SECONDS
        return self._ready

    def model_of(self, name: str) -> str:
        """The model that another name stands for, as of the last look; otherwise the name itself."""
        return name if name in self._ready else self._aliases.get(name, name)


def _count_ready(workers: Sequence[WorkerPresence], model: str) -> int:
    return sum(one.is_ready for one in workers if one.model == model)


@router.get("/ready")
async def ready(request: Request, model: Model = None) -> JSONResponse:
    """200 when a worker is ready for the model, or for any model where none is named; otherwise 503.

    404 for a model that nobody knows: waiting for it would not help.
    """
    readiness: Readiness = request.app.state.readiness
    by_model = await readiness.ready_workers()
    shown = by_model
    if model is not None:
        name = readiness.model_of(model)
        if name not in by_model:
            raise UnknownModel(model, sorted(by_model))
        shown = {name: by_model[name]}
    is_ready = any(shown.values())
    body = {"status": "ready" if is_ready else "not_ready", "ready_workers": dict(sorted(shown.items()))}
    return JSONResponse(body, 200 if is_ready else 503)


@router.get("/model_info")
async def model_info(fleet: Fleet, _: Known, model: Model = None) -> dict[str, Any]:
    """What the workers of a model say of it; ``model`` may be left out where the fleet knows only one."""
    name = await the_model(fleet, model)
    workers = await fleet.workers(name)
    return {
        "model": name,
        "ready_workers": _count_ready(workers, name),
        "max_model_len": min((one.max_model_len for one in workers if one.max_model_len), default=None),
        "generation_tokens_per_second": sum(one.generation_tokens_per_second for one in workers),
        "workers": [_shown(one) for one in workers],
    }


def _shown(worker: WorkerPresence) -> dict[str, Any]:
    # Where its pages are is for whoever can reach them, not for every caller.
    return {name: value for name, value in asdict(worker).items() if name not in {"pages", "process_id"}}


async def the_model(fleet: AsyncProducer, model: str | None) -> str:
    """The model that was named, or the only one there is.

    Raises:
        UnknownModel: it is none, or there is none.
        BadParameter: none was named, and there are several.
    """
    known = await fleet.models()
    if model is None and len(known) > 1:
        raise BadParameter("model", f"name a model, one of: {', '.join(sorted(known))}")
    if model is None and known:
        return next(iter(known))
    name = model if model is None or model in known else (await fleet.aliases()).get(model)
    if name is None or name not in known:
        raise UnknownModel(model or "", known)
    return name
