"""Turns of one conversation are asked in the order in which they came, whoever sends them and whoever dies."""

import asyncio
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from producer import (
    AsyncProducer,
    ConversationTerms,
    InvalidRequest,
    Producer,
    Submission,
    SubmitFailed,
    TurnInProgress,
    keys,
)
from producer.async_control_link import AsyncControlLink
from producer.contract import GenerationRequest, ToolCall
from producer.control_link import ControlLink
from producer.history import History
from producer.script import ScriptRun
from producer.submission import Destination, enqueue_run, prepare_turn, read_reply
from producer.turn_line import LINE_UP_SCRIPT, MOST_WAITING, PlaceInLine
from tests.finishing import Results, generation_result
from tests.queued import queued
from tests.waiting import eventually

CONVERSATION = keys.conversation(None, "c")
LINE, TICKETS = keys.line(CONVERSATION), keys.tickets(CONVERSATION)
WAIT_SECONDS = 60.0
DOOMED = """
import sys
from producer import Producer
with Producer(sys.argv[1]) as producer:
    producer.submit(model="m", conversation_id="c", messages=[{"role": "user", "content": "doomed"}])
"""


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain look at the server."""
    with redis.Redis.from_url(redis_url) as plain:
        yield plain


@pytest.fixture
def producer(redis_url: str) -> Iterator[Producer]:
    """A producer, and a fleet that knows the model ``m``."""
    with Producer(redis_url) as ours:
        ours.declare_model("m")
        yield ours


def turn(text: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - the request's
    """The next turn of the conversation ``c``."""
    return {"model": "m", "conversation_id": "c", "messages": [{"role": "user", "content": text}]} | fields


def waiting(client: redis.Redis) -> int:
    """Turns in the line."""
    return client.zcard(LINE)


def open_job(client: redis.Redis) -> str | None:
    """The job of the turn that is being answered; None when there is none."""
    version, job_id = client.hmget(CONVERSATION, "version", "job")
    return None if version is None or version.endswith(b".") else str(job_id.decode())


def said(producer: Producer) -> list[str]:
    """What was asked, in order."""
    return [one.messages[-1].content or "" for one in producer.conversation("c").turns]


def sync_turn(redis_url: str, text: str) -> None:
    """Submitted by a producer of its own."""
    with Producer(redis_url) as ours:
        ours.submit(**turn(text))


def async_turn(redis_url: str, text: str) -> None:
    """The same in an event loop of its own."""

    async def submitted() -> None:
        async with AsyncProducer(redis_url) as ours:
            await ours.submit(**turn(text))

    asyncio.run(submitted())


@contextmanager
def in_line(client: redis.Redis, submit: Callable[[], object]) -> Iterator[None]:
    """Somebody who submits and is waiting by now; has submitted afterwards."""
    before = waiting(client)
    thread = threading.Thread(target=submit)
    thread.start()
    try:
        eventually(lambda: waiting(client) > before, what="it waits")
        yield
    finally:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


def answer_next(client: redis.Redis, results: Results, answered: set[str]) -> None:
    """Answer the next job that nobody has answered, when it is there."""
    eventually(lambda: open_job(client) not in {None, *answered}, what="the next turn is asked")
    job_id = open_job(client)
    assert job_id is not None
    answered.add(job_id)
    results.succeed(job_id)


def line_up(client: redis.Redis, place: PlaceInLine) -> int:
    """Look once as this turn; how many are before it."""
    run = place.look
    reply: Any = client.eval(run.script.text, len(run.keys), *run.keys, *run.arguments)  # type: ignore[arg-type]  # the library's hints
    place.told(reply)
    return int(reply[0])


def place_of(text: str = "x") -> PlaceInLine:
    """Somebody's turn, which has not arrived yet."""
    return PlaceInLine(GenerationRequest.model_validate(turn(text)), ConversationTerms())


def test_turns_are_asked_in_the_order_in_which_they_came(
    redis_url: str, client: redis.Redis, producer: Producer, results: Results
) -> None:
    """From any number of producers, of both kinds."""
    producer.submit(**turn("0"))
    answered: set[str] = set()
    numbers = [str(number) for number in range(8)]
    waiters = [
        in_line(client, lambda number=number: (sync_turn, async_turn)[int(number) % 2](redis_url, number))
        for number in numbers[1:]
    ]
    for waiter in waiters:
        waiter.__enter__()
    try:
        for _ in numbers:
            answer_next(client, results, answered)
    finally:
        for waiter in waiters:
            waiter.__exit__(None, None, None)
    assert said(producer) == numbers
    assert client.exists(LINE, TICKETS) == 0


def test_who_is_killed_while_it_waits_is_passed_over(
    redis_url: str, client: redis.Redis, producer: Producer, results: Results
) -> None:
    """As the first in line, by those behind it, within the life of a ticket; nothing of it was said."""
    first = producer.submit(**turn("first"))
    doomed = subprocess.Popen([sys.executable, "-c", DOOMED, redis_url])
    try:
        eventually(lambda: waiting(client) == 1, what="it waits")
        with in_line(client, lambda: sync_turn(redis_url, "behind")):
            doomed.kill()
            assert doomed.wait(30) == -signal.SIGKILL
            results.succeed(first.job_id)
            eventually(lambda: open_job(client) not in {None, first.job_id}, seconds=30, what="it was passed over")
    finally:
        doomed.kill()
        doomed.wait()
    assert said(producer) == ["first", "behind"]


@pytest.mark.parametrize("asks", [sync_turn, async_turn])
def test_who_comes_later_does_not_overtake(
    redis_url: str, client: redis.Redis, producer: Producer, asks: Callable[[str, str], None]
) -> None:
    """Though the conversation is free, as between an answer and the turn that waited for it."""
    other = place_of()
    assert line_up(client, other) == 0
    producer.conversation_terms = ConversationTerms(wait_seconds=0)
    with pytest.raises(TurnInProgress, match="the turns before this one"):
        producer.submit(**turn("newcomer"))
    assert queued(client) == []
    with in_line(client, lambda: asks(redis_url, "second")):
        assert line_up(client, other) == 0
        client.zrem(LINE, other.ticket)
    assert said(producer) == ["second"]


def test_the_script_that_queues_a_turn_looks_at_the_line(client: redis.Redis, producer: Producer) -> None:
    """A job that was made of the conversation as it is waits behind who came earlier, all the same."""
    asked = GenerationRequest.model_validate(turn("newcomer"))
    job = prepare_turn(asked, *History(CONVERSATION, {}).next_turn(asked, producer.conversation_terms))
    run = enqueue_run([job], Destination(0))

    def submitted() -> Submission:
        return read_reply(job, client.eval(run.script.text, len(run.keys), *run.keys, *run.arguments))  # type: ignore[arg-type]  # the library's hints

    other = place_of()
    line_up(client, other)
    with pytest.raises(TurnInProgress):
        submitted()
    client.hset(TICKETS, other.ticket, 1)
    assert submitted().job_id == job.job_id


def test_who_gives_up_leaves_the_line_at_once(client: redis.Redis, producer: Producer) -> None:
    """Its time is up, or its turn is refused for what it says or for its model."""
    producer.conversation_terms = ConversationTerms(wait_seconds=0.05)
    with pytest.raises(InvalidRequest, match="needs a message after"):
        producer.submit(**turn("x", messages=[{"role": "system", "content": "alone"}]))
    assert client.exists(LINE, TICKETS) == 0
    job = producer.submit(**turn("first"))
    for model in ("m", "unknown"):
        with pytest.raises(TurnInProgress):
            producer.submit(**turn("second", model=model))
        assert client.exists(LINE, TICKETS) == 0
    producer.cancel(job)


async def test_a_waiter_that_is_cancelled_leaves_the_line(
    redis_url: str, client: redis.Redis, producer: Producer
) -> None:
    """In an event loop, where whoever waits may be cancelled; those behind it move up."""
    job = producer.submit(**turn("first"))
    async with AsyncProducer(redis_url) as ours:
        second = asyncio.create_task(ours.submit(**turn("second")))
        await asyncio.to_thread(eventually, lambda: waiting(client) == 1, what="it waits")
        third = asyncio.create_task(ours.submit(**turn("third")))
        await asyncio.to_thread(eventually, lambda: waiting(client) == 2, what="the other one waits too")
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await asyncio.to_thread(eventually, lambda: waiting(client) == 1, what="it has left")
        producer.cancel(job)
        assert (await third).job_id == open_job(client)
    assert said(producer) == ["third"]


async def test_a_turn_that_is_cancelled_while_it_is_queued_is_not_said(
    redis_url: str, client: redis.Redis, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job is queued by then, and is cancelled; one with an idempotency key is left to whoever comes back for it."""
    for key in (None, "k"):
        async with AsyncProducer(redis_url) as ours:
            enqueue, queueing, may_go_on = ours._link.enqueue, asyncio.Event(), asyncio.Event()

            async def held(run: Any, enqueue: Any = enqueue, done: Any = queueing, go: Any = may_go_on) -> bytes:  # noqa: ANN401 - the link's
                reply: bytes = await enqueue(run)
                done.set()
                await go.wait()
                return reply

            monkeypatch.setattr(ours._link, "enqueue", held)
            submitting = asyncio.create_task(ours.submit(**turn("first", idempotency_key=key)))
            await queueing.wait()
            submitting.cancel()
            job_id = open_job(client)
            assert job_id is not None
            may_go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await submitting
        assert (b"REVOKED" in (client.get(keys.result(job_id)) or b"")) == (key is None)
    assert said(producer) == ["first"]


def test_a_turn_that_is_sent_again_waits_for_nobody_in_line(client: redis.Redis, producer: Producer) -> None:
    """Its job is named at once, and it leaves no ticket behind."""
    first = producer.submit(**turn("first", idempotency_key="k"))
    line_up(client, place_of())
    producer.conversation_terms = ConversationTerms(wait_seconds=0)
    again = producer.submit(**turn("first", idempotency_key="k"))
    assert (again.job_id, again.duplicate) == (first.job_id, True)
    assert waiting(client) == 1


def test_a_tools_answer_with_a_key_waits_for_the_call(
    client: redis.Redis, producer: Producer, results: Results
) -> None:
    """It is looked for as a turn that was sent before, though the history does not have the call yet."""
    call = ToolCall.model_validate(
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    )
    first = producer.submit(**turn("How is Oslo?"))
    stored = generation_result(first.job_id, "")
    choice = stored.choices[0].model_copy(update={"tool_calls": (call,)})
    results.store(first.job_id, stored.model_copy(update={"choices": (choice,)}).model_dump(mode="json"), "SUCCESS")
    tool = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}
    second = producer.submit(**turn("", messages=[tool], idempotency_key="k"))
    assert open_job(client) == second.job_id


def test_an_uncontended_turn_costs_two_round_trips(client: redis.Redis, producer: Producer, results: Results) -> None:
    """One that looks, and one that queues, as before there was a line."""

    def sent() -> int:
        stats: Any = client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha", "multi"))

    job = producer.submit(**turn("first"))
    results.succeed(job.job_id)
    producer.result(job)
    before = sent()
    producer.submit(**turn("second"))
    assert sent() - before == 2


def test_a_line_is_bounded(client: redis.Redis, producer: Producer) -> None:
    """Who would be one too many is told so; those who are gone make room. Redis forgets a line that nobody looks at."""
    far_away = 10**15
    client.zadd(LINE, {f"t{number}": number for number in range(MOST_WAITING)})
    client.hset(TICKETS, mapping={f"t{number}": far_away for number in range(MOST_WAITING)})
    with pytest.raises(TurnInProgress, match="1,000 turns of it wait already"):
        producer.submit(**turn("one too many"))
    assert waiting(client) == MOST_WAITING
    client.hset(TICKETS, "t500", 1)
    assert line_up(client, place_of()) == MOST_WAITING - 1
    assert (0 < client.pttl(LINE) <= 5000, 0 < client.pttl(TICKETS) <= 5000) == (True, True)


@pytest.mark.parametrize("seed", range(4))
def test_the_line_keeps_to_its_model(client: redis.Redis, seed: int) -> None:
    """A list of who came: next is its first that lives, and who looks again in time has kept its place."""
    draw = random.Random(seed)  # noqa: S311 - a repeatable walk, not a secret
    places = [place_of(str(number)) for number in range(6)]
    line: list[PlaceInLine] = []
    dead: set[str] = set()
    for _ in range(300):
        place = draw.choice(places)
        step = draw.choice(["look", "look", "look", "leave", "die"])
        if step == "look":
            dead.discard(place.ticket)
            if place not in line:
                line.append(place)
            while line[0].ticket in dead:
                dead.discard(line.pop(0).ticket)
            assert line_up(client, place) == line.index(place)
        elif place in line and step == "leave":
            line.remove(place)
            dead.discard(place.ticket)
            client.zrem(LINE, place.ticket)
            client.hdel(TICKETS, place.ticket)
        elif place in line:
            dead.add(place.ticket)
            client.hset(TICKETS, place.ticket, 1)


@pytest.mark.parametrize("asks", [sync_turn, async_turn])
def test_a_turn_that_waits_outlasts_an_outage(
    redis_url: str, client: redis.Redis, producer: Producer, monkeypatch: pytest.MonkeyPatch, asks: Callable[..., None]
) -> None:
    """Once it has arrived; a Redis that is not there at its first look is told at once."""
    first, tried = producer.submit(**turn("first")), 0
    away = range(2, 6)  # both attempts of two looks

    def is_away() -> bool:
        nonlocal tried
        tried += 1
        return tried in away

    for link in (ControlLink, AsyncControlLink):
        monkeypatch.setattr(link, "_run", broken(link._run, is_away))
    with in_line(client, lambda: asks(redis_url, "second")):
        eventually(lambda: tried >= away.stop, what="Redis was away, and is back")
        producer.cancel(first)
    assert said(producer) == ["second"]
    tried, away = 0, range(1, 3)
    with pytest.raises(SubmitFailed):
        asks(redis_url, "third")
    assert tried == len(away)


def broken(run: Callable[..., Any], is_away: Callable[[], bool]) -> Callable[..., Any]:
    """The link's way to run scripts, which finds no server where one that takes places in line is away."""

    def tried(link: Any, script: ScriptRun) -> Any:  # noqa: ANN401 - the link's
        if script.script is LINE_UP_SCRIPT and is_away():
            raise redis.ConnectionError("away")
        return run(link, script)

    return tried
