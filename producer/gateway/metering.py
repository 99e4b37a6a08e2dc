"""What a request costs the key that it came with: charged at the door, corrected when the answer is known."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Depends, Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producer.api_keys import ApiKey
from producer.async_client import AsyncProducer
from producer.contract import GenerationRequest
from producer.errors import FleetError, FleetUnreachable
from producer.gateway.errors import NotAllowed
from producer.gateway.waiting import ClientGone, unless_gone
from producer.jobs import Submission
from producer.rate_limits import Bucket, Standing, estimated_tokens
from producer.stream_reading import StreamEnded, StreamEvent

RATE_LIMIT_EXCEEDED: Final = "rate_limit_exceeded"
RATE_LIMIT_HEADERS: Final = tuple(
    f"x-ratelimit-{what}-{kind}" for kind in ("requests", "tokens") for what in ("limit", "remaining", "reset")
)
"""As OpenAI's API names them (its guide on rate limits)."""
SHOULD_RETRY: Final = "x-should-retry"
"""OpenAI's clients obey it, whatever the status is."""


class Meter:
    """What one HTTP request costs its key."""

    def __init__(self, producer: AsyncProducer, key: ApiKey) -> None:
        self._producer = producer
        self._key = key
        self._charged_tokens = 0
        self._standing: Standing | None = None
        self.is_hopeless = False
        """It asked for more than a minute's worth: no waiting helps."""

    @property
    def counts_tokens(self) -> bool:
        """Whether its key has a limit of them."""
        return self._key.limits.tokens_per_minute is not None

    async def charge(self, requests: int, tokens: int) -> None:
        """Charge so many requests, and the tokens that they may take together.

        Raises:
            NotAllowed: the key has not as much left; the error says when it will.
            FleetUnreachable: Redis could not be reached, or refused; nothing is charged.
        """
        self._refuse_what_never_fits("requests", requests, self._key.limits.requests_per_minute)
        self._refuse_what_never_fits("tokens", tokens, self._key.limits.tokens_per_minute)
        standing = self._standing = await self._producer.charge_key(self._key, requests, tokens)
        if standing.is_charged:
            self._charged_tokens += tokens
            return
        seconds = standing.fits_in_seconds(requests, tokens)
        message = f"this key's rate limit is reached ({_said(standing)}): send the request again in {seconds} s"
        raise NotAllowed(HTTPStatus.TOO_MANY_REQUESTS, RATE_LIMIT_EXCEEDED, message, seconds)

    def _refuse_what_never_fits(self, kind: str, cost: int, limit: int | None) -> None:
        if limit is None or cost <= limit:
            return
        self.is_hopeless = True
        message = (
            f"this may take {cost:,} {kind}, and its key has {limit:,} a minute: ask for less, or for a higher limit"
        )
        raise NotAllowed(HTTPStatus.TOO_MANY_REQUESTS, RATE_LIMIT_EXCEEDED, message, None)

    async def settle(self, tokens: int) -> None:
        """Let the tokens that were taken stand in place of those that were charged."""
        if (difference := tokens - self._charged_tokens) and self.counts_tokens:
            self._charged_tokens = tokens
            self._standing = await self._producer.correct_key(self._key, difference)

    async def headers(self) -> dict[str, str]:
        """What the answer's headers say of the key."""
        standing = self._standing or await self._producer.charge_key(self._key, 0, 0)
        return _headers("requests", standing.requests) | _headers("tokens", standing.tokens)


class Metering:
    """Gives requests of limited keys a meter, and all their answers its headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        caller = scope.get("state", {}).get("caller")
        if caller is None or caller.key is None or caller.key.limits.are_none:
            await self._app(scope, receive, send)
            return
        meter = scope["state"]["meter"] = Meter(scope["app"].state.producer, caller.key)

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                with suppress(FleetUnreachable):
                    headers.update(await meter.headers())
                if meter.is_hopeless:
                    headers[SHOULD_RETRY] = "false"
            await send(message)

        await self._app(scope, receive, told)


class Desk:
    """Where requests become jobs: each is charged to its key, if that is limited."""

    def __init__(self, request: Request) -> None:
        self._fleet: AsyncProducer = request.app.state.producer
        self._receive = request.receive
        self._state = request.state
        self._meter: Meter | None = getattr(request.state, "meter", None)

    async def charge(self, jobs: Sequence[GenerationRequest]) -> None:
        """Charge jobs that are submitted otherwise.

        Raises:
            NotAllowed: their key has not as much left.
            FleetUnreachable: Redis could not be reached, or refused; nothing is charged.
        """
        if self._meter is not None:
            await self._meter.charge(len(jobs), sum(map(estimated_tokens, jobs)))

    async def submit(self, job: GenerationRequest) -> Submission:
        """Queue the job.

        Raises:
            NotAllowed: its key has not as much left.
            ClientGone: it left while its turn waited for others, and nothing is queued.
            FleetError: as :meth:`producer.AsyncProducer.submit`.
        """
        if self._meter is None:
            submission = await self._queued(job)
        else:
            await self._meter.charge(1, estimated_tokens(job) + await self._history_tokens(job, self._meter))
            try:
                submission = await self._queued(job)
            except FleetUnreachable:
                raise
            except (FleetError, ClientGone):
                await self.settle(0)
                raise
            if submission.duplicate:
                await self.settle(0)
        self._state.job_id = submission.job_id
        return submission

    async def _history_tokens(self, job: GenerationRequest, meter: Meter) -> int:
        return await self._fleet.history_tokens(job) if meter.counts_tokens else 0

    async def _queued(self, job: GenerationRequest) -> Submission:
        if job.conversation_id is None:
            return await self._fleet.submit(job)
        # A turn may wait long for those before it; who leaves meanwhile gives up its place among them.
        return await unless_gone(self._receive, self._fleet.submit(job))

    async def settle(self, tokens: int) -> None:
        """Charge what the answer took. An answer that is there is not kept back because that could not be written."""
        if self._meter is not None:
            with suppress(FleetUnreachable):
                await self._meter.settle(tokens)

    async def settling(self, told: AsyncGenerator[StreamEvent, None]) -> AsyncGenerator[StreamEvent, None]:
        """The same events; with the last one what the answer took is charged."""
        async with aclosing(told):
            async for news in told:
                if isinstance(news, StreamEnded):
                    await self.settle(news.result.usage.total_tokens)
                yield news


def desk_of(request: Request) -> Desk:
    """Of this request."""
    return Desk(request)


AtDesk = Annotated[Desk, Depends(desk_of)]


def _headers(kind: str, bucket: Bucket | None) -> dict[str, str]:
    if bucket is None:
        return {}
    return {
        f"x-ratelimit-limit-{kind}": str(bucket.limit),
        f"x-ratelimit-remaining-{kind}": str(bucket.remaining),
        f"x-ratelimit-reset-{kind}": duration(bucket.full_in_seconds),
    }


def duration(seconds: float) -> str:
    """A time as OpenAI's headers have it: ``12ms``, ``7.5s``, ``1m0s``."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:  # noqa: PLR2004 - a second
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return (f"{minutes}m" if minutes else "") + f"{rest / 1000:g}s"


def _said(standing: Standing) -> str:
    kinds = (("requests", standing.requests), ("tokens", standing.tokens))
    return ", ".join(
        f"{bucket.remaining:,} of {bucket.limit:,} {name} a minute left" for name, bucket in kinds if bucket is not None
    )
