"""Completions of several prompts: one request, a job for each prompt, and one answer or one stream of all."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from producer.async_client import AsyncProducer
from producer.contract import Failure, FailureCode, GenerationRequest, GenerationResult, Usage
from producer.errors import FleetError, FleetUnreachable, InferenceFailed
from producer.gateway.errors import body, of_fleet
from producer.gateway.metering import Desk
from producer.gateway.openai_requests import CompletionRequest
from producer.gateway.openai_responses import DONE, RESTARTED, Chunks, Head, whole
from producer.gateway.together import submitted_whole
from producer.gateway.waiting import (
    CLIENT_CLOSED_REQUEST,
    ClientGone,
    Events,
    EventStream,
    awaited_all,
    begun,
    event,
    give_up,
)
from producer.jobs import Submission
from producer.outcome import Outcome
from producer.stream_reading import StreamDelta, StreamEnded, StreamEvent, StreamRestarted
from producer.tasks import end

Told = AsyncGenerator[tuple[int, StreamEvent], None]
"""What is told of all prompts as it comes, each with its prompt's place."""


async def answered_together(
    jobs: Sequence[GenerationRequest], asked: CompletionRequest, request: Request, fleet: AsyncProducer
) -> Response:
    """The answer to all of them. The first that fails is the whole request's error, and the others are given up.

    Raises:
        NotAllowed: their key has not as much left.
        FleetError: why one of them was refused, or failed.
    """
    desk, is_shared = Desk(request), jobs[0].idempotency_key is not None
    submissions = await submitted_whole(fleet, desk, jobs, is_shared=is_shared)
    head = Head(submissions[0].job_id, asked.model, int(time.time()), is_chat=False)
    if asked.stream:
        return await _streamed(Group(fleet, submissions, desk, is_shared=is_shared), head, asked)
    try:
        ended = await awaited_all(request, fleet, submissions, is_shared=is_shared, until_one_fails=True)
    except ClientGone:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    results = _unwrapped(submissions, ended)
    await desk.settle(sum(result.usage.total_tokens for result in results))
    return JSONResponse(whole(head, *results))


def _unwrapped(jobs: Sequence[Submission], ended: Mapping[str, Outcome]) -> list[GenerationResult]:
    """The results in their order.

    Raises:
        InferenceFailed: one has none; those that were given up for it have no outcome.
    """
    results: list[GenerationResult] = []
    for place, job in enumerate(jobs):
        match ended.get(job.job_id):
            case GenerationResult() as result:
                results.append(result)
            case Failure() as failure:
                raise _of_prompt(place, failure.code, failure.message)
    return results


def _of_prompt(place: int, code: FailureCode, message: str) -> InferenceFailed:
    return InferenceFailed(code, f"prompt.{place}: {message}")


@dataclass(frozen=True, slots=True)
class Group:
    """The jobs of one request that is streamed."""

    fleet: AsyncProducer
    jobs: Sequence[Submission]
    desk: Desk
    is_shared: bool
    """They have keys, by which somebody may come back for them."""

    async def give_up(self) -> None:
        """Nobody waits for them here any more; while Redis is away they go on."""
        with suppress(FleetUnreachable):
            await give_up(self.fleet, self.jobs, is_shared=self.is_shared)

    async def told(self) -> Told:
        """What all of them say, as it comes; over when all have ended.

        Raises:
            FleetError: one failed.
        """
        # One place: while nobody takes what is in it, nothing more is read.
        heard: asyncio.Queue[tuple[int, StreamEvent | Exception]] = asyncio.Queue(maxsize=1)
        listening = [asyncio.create_task(self._listen(place, heard)) for place in range(len(self.jobs))]
        left = len(listening)
        try:
            while left:
                place, news = await heard.get()
                if isinstance(news, InferenceFailed):
                    raise _of_prompt(place, news.code, news.message) from news
                if isinstance(news, Exception):
                    raise news
                left -= isinstance(news, StreamEnded)
                yield place, news
        finally:
            await end(*listening)

    async def _listen(self, place: int, heard: "asyncio.Queue[tuple[int, StreamEvent | Exception]]") -> None:
        try:
            async with aclosing(self.fleet.stream(self.jobs[place])) as told:
                async for news in told:
                    await heard.put((place, news))
        except Exception as error:  # noqa: BLE001 - whoever takes from the queue raises it, and would wait for ever else
            await heard.put((place, error))


async def _streamed(group: Group, head: Head, asked: CompletionRequest) -> Response:
    try:
        told = await begun(group.told())
    except FleetError:
        await group.give_up()
        raise
    choices_each = asked.n or 1
    chunks = [
        Chunks(head, with_usage=asked.wants_usage, first_index=place * choices_each) for place in range(len(group.jobs))
    ]
    return EventStream(_events(group, told, chunks), group.give_up)


async def _events(group: Group, told: Told, chunks: Sequence[Chunks]) -> Events:
    """As OpenAI streams them, those of all prompts in one stream. They have no ids: no single place is meant."""
    used: list[Usage] = []
    try:
        async with aclosing(told):
            async for place, news in told:
                match news:
                    case StreamDelta():
                        yield event(chunks[place].deltas(news.choices))
                    case StreamRestarted() if chunks[place].has_said:
                        await group.give_up()
                        yield event(body(500, RESTARTED, code="restarted"))
                        return
                    case StreamEnded():
                        used.append(news.result.usage)
    except FleetError as error:
        await group.give_up()
        yield event(of_fleet(error)[1])
        return
    await group.desk.settle(sum(one.total_tokens for one in used))
    if chunks[0].with_usage:
        yield event(chunks[0].usage(*used))
    yield DONE
