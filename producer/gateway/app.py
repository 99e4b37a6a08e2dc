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
from producer.conversation import ConversationTerms
from producer.gateway import (
    bulk,
    conversation_routes,
    errors,
    jobs_routes,
    openai_routes,
    plain_routes,
    presence_routes,
)
from producer.gateway.buffers import Bounded, Buffers
from producer.gateway.callers import UI_PATH, Doorkeeper, KeyRing
from producer.gateway.described import describe
from producer.gateway.metering import Metering
from producer.gateway.options import MOST_BUFFERED_BYTES
from producer.gateway.ui.app import create_ui
from producer.webhooks.deliverer import DeliveryOptions, delivering

TITLE: Final = "Inference Fleet"
TOO_LARGE: Final = f"the body has more than {MAX_MESSAGE_BYTES:,} bytes, which no job may have"


class SizeLimit:
    """Refuses bodies that are larger than any job, before they are read as JSON."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        if scope["type"] != "http" or scope["path"] == bulk.BULK_PATH:  # which looks at each job
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


def create_app(
    redis_url: str,
    *,
    require_keys: bool,
    request_timeout_seconds: float,
    conversation_terms: ConversationTerms,
    delivery: DeliveryOptions | None = None,
) -> FastAPI:
    """The app for a fleet; it connects when it starts and closes its producer when it ends.

    An answer that is not streamed is waited for so many seconds. With ``delivery`` it delivers webhooks too.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncProducer(redis_url) as producer:
            producer.lists_jobs = True
            producer.conversation_terms = conversation_terms
            app.state.producer = producer
            app.state.keys = KeyRing(producer, is_asked_for=require_keys)
            app.state.readiness = presence_routes.Readiness(producer)
            async with delivering(redis_url, delivery):
                yield

    app = FastAPI(title=TITLE, lifespan=lifespan)
    app.state.request_timeout_seconds = request_timeout_seconds
    app.state.buffers = Buffers(MOST_BUFFERED_BYTES)
    app.include_router(openai_routes.router)
    app.include_router(bulk.router)
    app.include_router(jobs_routes.router)
    app.include_router(plain_routes.router)
    app.include_router(presence_routes.router)
    app.include_router(conversation_routes.router)
    app.add_api_route("/health", health, methods=["GET"])
    app.mount(UI_PATH, create_ui(app.state))
    app.add_middleware(SizeLimit)
    app.add_middleware(Bounded)
    app.add_middleware(Metering)
    app.add_middleware(Doorkeeper)  # the last that is added is the first to be asked
    errors.install(app)
    describe(app, require_keys=require_keys)
    return app


async def health() -> dict[str, Any]:
    """This process answers."""
    return {"status": "ok"}
