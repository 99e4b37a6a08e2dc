"""The app: routes, errors and limits over one producer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producer.async_client import AsyncProducer
from producer.contract import MAX_MESSAGE_BYTES
from producer.gateway import errors, jobs_routes, openai_routes
from producer.gateway.callers import Doorkeeper, KeyRing

TITLE: Final = "Inference Fleet"
TOO_LARGE: Final = f"the body has more than {MAX_MESSAGE_BYTES:,} bytes, which no job may have"


class SizeLimit:
    """Refuses bodies that are larger than any job, before they are read as JSON."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = Headers(scope=scope).get("content-length", "")
        if said.isdigit() and int(said) > MAX_MESSAGE_BYTES:
            await errors.answer(413, errors.body(413, TOO_LARGE, code="too_large"))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_MESSAGE_BYTES:
                raise HTTPException(413, TOO_LARGE)
            return message

        await self._app(scope, counted, send)


def create_app(redis_url: str, *, require_keys: bool) -> FastAPI:
    """The app for a fleet; it connects when it starts and closes its producer when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncProducer(redis_url) as producer:
            app.state.producer = producer
            app.state.keys = KeyRing(producer, is_asked_for=require_keys)
            yield

    app = FastAPI(title=TITLE, lifespan=lifespan)
    app.include_router(openai_routes.router)
    app.include_router(jobs_routes.router)
    app.add_api_route("/health", health, methods=["GET"])
    app.add_middleware(SizeLimit)
    app.add_middleware(Doorkeeper)  # the last that is added is the first to be asked
    errors.install(app)
    return app


async def health() -> dict[str, Any]:
    """This process answers."""
    return {"status": "ok"}
