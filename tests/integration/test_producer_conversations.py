"""Conversations at the producer: what the next turn's job is asked, whatever became of the turns before it."""

import threading
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import redis

from producer import (
    AsyncProducer,
    ConversationTerms,
    InferenceFailed,
    InvalidRequest,
    Producer,
    QueueFull,
    Submission,
    SubmitFailed,
    TurnInProgress,
    UnknownConversation,
    UnknownModel,
    keys,
)
from producer.contract import MAX_PROMPT_BYTES, GenerationRequest, ToolCall, Usage
from producer.history import History
from producer.submission import Destination, enqueue_run, prepare_turn, read_reply
from tests.finishing import Results, generation_result
from tests.queued import queued
from tests.waiting import eventually

SYSTEM = {"role": "system", "content": "Be brief."}
WAIT_SECONDS = 60.0


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


def user(text: str) -> dict[str, str]:
    """What somebody says."""
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    """What a model answers."""
    return {"role": "assistant", "content": text}


def say(producer: Producer, *messages: dict[str, str], **fields: Any) -> Submission:  # noqa: ANN401 - the request's
    """The next turn of the conversation ``c``."""
    return producer.submit(**{"model": "m", "messages": messages, "conversation_id": "c"} | fields)


def answer(results: Results, job: Submission, text: str, prompt_tokens: int = 3, completion_tokens: int = 2) -> None:
    """As a worker does."""
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
    result = generation_result(job.job_id, text).model_copy(update={"usage": usage})
    results.store(job.job_id, result.model_dump(mode="json"), "SUCCESS")


def asked(client: redis.Redis, job: Submission) -> list[dict[str, str]]:
    """The messages of a job that waits."""
    return request_of(client, job)["messages"]  # type: ignore[no-any-return]  # JSON


def request_of(client: redis.Redis, job: Submission) -> dict[str, Any]:
    """The request of a job that waits."""
    [message] = [one for one in queued(client) if one["headers"]["id"] == job.job_id]
    [[request], _, _] = orjson.loads(message["body"])
    return request  # type: ignore[no-any-return]  # JSON


def history(producer: Producer, conversation_id: str = "c", tenant: str | None = None) -> list[dict[str, str]]:
    """All messages of a conversation."""
    known = producer.conversation(conversation_id, tenant)
    return [{"role": message.role, "content": message.content} for message in known.messages]


@pytest.mark.parametrize("is_read", [True, False])
def test_the_next_turn_is_asked_after_what_was_said(
    client: redis.Redis, producer: Producer, results: Results, *, is_read: bool
) -> None:
    """Whether or not anybody read the answer before; the worker is told nothing of conversations."""
    first = say(producer, SYSTEM, user("one"))
    assert asked(client, first) == [SYSTEM, user("one")]
    answer(results, first, "eins")
    if is_read:
        assert producer.result(first).text == "eins"
    second = say(producer, user("two"))
    assert asked(client, second) == [SYSTEM, user("one"), assistant("eins"), user("two")]
    assert "conversation_id" not in request_of(client, second)
    answer(results, second, "zwei", 20, 4)
    known = producer.conversation("c")
    assert history(producer) == [SYSTEM, user("one"), assistant("eins"), user("two"), assistant("zwei")]
    assert [turn.job_id for turn in known.turns] == [first.job_id, second.job_id]
    assert (known.tokens, known.open_job_id) == (24, None)


def test_a_conversation_shows_the_turn_that_is_in_progress(producer: Producer, results: Results) -> None:
    """Until it is answered; reading it is enough for the answer to be kept."""
    job = say(producer, user("one"))
    assert (history(producer), producer.conversation("c").open_job_id) == ([user("one")], job.job_id)
    answer(results, job, "eins")
    assert (history(producer), producer.conversation("c").open_job_id) == ([user("one"), assistant("eins")], None)


@pytest.mark.parametrize("end", ["failed", "cancelled", "lost"])
def test_a_turn_without_an_answer_is_as_if_it_had_not_been_said(
    client: redis.Redis, producer: Producer, results: Results, end: str
) -> None:
    """As the first, when there is no conversation afterwards, and as a later one, with its system turn."""
    for earlier in ([], [SYSTEM, user("one"), assistant("eins")]):
        job = say(producer, {"role": "system", "content": "Be long."}, user("lost"))
        if end == "failed":
            results.fail(job.job_id, InferenceFailed("engine_failed", "it broke"))
        elif end == "cancelled":
            producer.cancel(job)
        else:
            client.delete(keys.job_record(job.job_id))
        if not earlier:
            with pytest.raises(UnknownConversation):
                producer.conversation("c")
            job = say(producer, SYSTEM, user("one"))
            assert asked(client, job) == [SYSTEM, user("one")]
            answer(results, job, "eins")
        else:
            assert history(producer) == earlier
            assert asked(client, say(producer, user("two"))) == [*earlier, user("two")]


def test_a_turn_waits_for_the_one_before_it(producer: Producer, results: Results, client: redis.Redis) -> None:
    """As long as it was told to; then nothing of it is queued or noted."""
    first = say(producer, user("one"))
    producer.conversation_terms = ConversationTerms(wait_seconds=0.05)
    with pytest.raises(TurnInProgress, match=r"'c'.*not answered within 0.05 s"):
        say(producer, user("too soon"))
    assert len(queued(client)) == 1
    producer.conversation_terms = ConversationTerms(wait_seconds=WAIT_SECONDS)
    second: list[Submission] = []
    waiting = threading.Thread(target=lambda: second.append(say(producer, user("two"))))
    waiting.start()
    eventually(lambda: client.pubsub_channels(keys.result(first.job_id)), what="it waits")
    assert second == []
    answer(results, first, "eins")
    waiting.join(WAIT_SECONDS)
    assert asked(client, second[0]) == [user("one"), assistant("eins"), user("two")]


async def test_in_an_event_loop_a_turn_waits_too(
    redis_url: str, producer: Producer, results: Results, client: redis.Redis
) -> None:
    """And fails in the same words."""
    async with AsyncProducer(redis_url) as ours:
        ours.conversation_terms = ConversationTerms(wait_seconds=0.05)
        turn: dict[str, Any] = {"model": "m", "conversation_id": "c"}
        first = await ours.submit(**turn, messages=[user("one")])
        with pytest.raises(TurnInProgress, match=r"not answered within 0.05 s"):
            await ours.submit(**turn, messages=[user("too soon")])
        answer(results, first, "eins")
        assert (await ours.result(first)).text == "eins"
        second = await ours.submit(**turn, messages=[user("two")])
        assert asked(client, second) == [user("one"), assistant("eins"), user("two")]
        assert (await ours.conversation("c")).open_job_id == second.job_id
        await ours.cancel(second)
        assert (await ours.conversation("c")).messages == producer.conversation("c").messages
        assert await ours.forget_conversation("c")
        with pytest.raises(UnknownConversation):
            await ours.conversation("c")


def test_a_turn_that_is_sent_again_is_the_same_turn(producer: Producer, results: Results, client: redis.Redis) -> None:
    """By its idempotency key: at once while it runs, and after it and later turns were answered."""
    producer.conversation_terms = ConversationTerms(wait_seconds=0)
    first = say(producer, user("one"), idempotency_key="k")
    again = say(producer, user("one"), idempotency_key="k")
    assert (again.job_id, again.duplicate) == (first.job_id, True)
    answer(results, first, "eins")
    assert producer.result(again).text == "eins"
    second = say(producer, user("two"))
    assert say(producer, user("one"), idempotency_key="k").job_id == first.job_id
    with pytest.raises(InvalidRequest, match="asked something else"):
        say(producer, user("other"), idempotency_key="k")
    with pytest.raises(InvalidRequest, match="asked something else"):
        say(producer, user("one"), idempotency_key="k", conversation_id="d")
    answer(results, second, "zwei")
    assert history(producer) == [user("one"), assistant("eins"), user("two"), assistant("zwei")]
    assert len(queued(client)) == 2


def test_the_oldest_turns_leave_and_the_system_turn_stays(
    client: redis.Redis, producer: Producer, results: Results
) -> None:
    """By the engine's own counts; half of the bound is for the answer when that may be longer."""
    producer.conversation_terms = ConversationTerms(max_tokens=200)
    total = 10
    for number in range(4):
        job = say(producer, *([SYSTEM] if number == 0 else []), user("x" * 60), sampling={"max_tokens": 1})
        total += 40
        answer(results, job, f"answer {number}" + "y" * 50, total - 20, 20)
    # 170 tokens, of which each turn has 40, and room for 150 with the new one's.
    kept = asked(client, say(producer, user("last"), sampling={"max_tokens": 50}))
    assert kept[0] == SYSTEM
    assert kept[-1] == user("last")
    answers = [message["content"].rstrip("y") for message in kept if message["role"] == "assistant"]
    assert answers == ["answer 1", "answer 2", "answer 3"]


def test_what_has_left_comes_back_when_its_successor_fails(
    client: redis.Redis, producer: Producer, results: Results
) -> None:
    """A turn that was never answered has shortened nothing; one that was has, and Redis keeps no more than needed."""
    producer.conversation_terms = ConversationTerms(max_tokens=200)
    first = say(producer, SYSTEM, user("one"), sampling={"max_tokens": 10})
    answer(results, first, "eins", 100, 20)
    large = say(producer, user("two"), sampling={"max_tokens": 100})
    assert asked(client, large) == [SYSTEM, user("two")]
    producer.cancel(large)
    kept = say(producer, user("two"), sampling={"max_tokens": 10})
    assert asked(client, kept) == [SYSTEM, user("one"), assistant("eins"), user("two")]
    producer.cancel(kept)
    large = say(producer, user("two"), sampling={"max_tokens": 100})
    answer(results, large, "zwei", 20, 5)
    assert history(producer) == [SYSTEM, user("two"), assistant("zwei")]
    say(producer, user("three"), sampling={"max_tokens": 10})
    stored = b"".join(client.hgetall(keys.conversation(None, "c")).values())
    assert b"eins" not in stored
    assert b"Be brief." in stored


def test_a_later_system_turn_replaces_the_earlier_one(
    client: redis.Redis, producer: Producer, results: Results
) -> None:
    """The same one, sent with every turn as clients do, changes nothing."""
    other = {"role": "system", "content": "Be long."}
    answer(results, say(producer, SYSTEM, user("one")), "eins")
    second = say(producer, SYSTEM, user("two"))
    assert asked(client, second) == [SYSTEM, user("one"), assistant("eins"), user("two")]
    answer(results, second, "zwei")
    third = say(producer, other, user("three"))
    assert asked(client, third)[0] == other
    assert SYSTEM not in asked(client, third)
    answer(results, third, "drei")
    assert history(producer)[0] == other
    with pytest.raises(InvalidRequest, match="needs a message after its system"):
        say(producer, other)


def test_a_prompt_that_was_too_long_for_the_model_is_followed_by_a_shorter_one(
    client: redis.Redis, producer: Producer, results: Results
) -> None:
    """Or the conversation would end there; the producer does not know the model's context."""
    for number in range(3):
        answer(results, say(producer, user("x" * 40)), f"{number}", 100 * (number + 1) - 10, 10)
    refused = say(producer, user("next"), sampling={"max_tokens": 16})
    assert len(asked(client, refused)) == 7
    results.fail(refused.job_id, InferenceFailed("context_length_exceeded", "too long"))
    assert len(asked(client, say(producer, user("next"), sampling={"max_tokens": 16}))) == 5


def test_no_history_is_longer_than_a_prompt_may_be(client: redis.Redis, producer: Producer, results: Results) -> None:
    """In bytes; a turn that is too long by itself is refused."""
    producer.conversation_terms = ConversationTerms(max_tokens=10**9)
    part = "x" * (MAX_PROMPT_BYTES // 3 - 500)
    for number in range(3):
        job = say(producer, user(part))
        assert len(asked(client, job)) == [1, 3, 5][number]
        answer(results, job, f"{number}")
        client.delete(keys.QueueKeys("m").waiting)
    assert [message["content"][:1] for message in asked(client, say(producer, user(part)))] == ["x", "1", "x", "2", "x"]
    with pytest.raises(InvalidRequest, match="bytes of JSON"):
        say(producer, user('"' * (MAX_PROMPT_BYTES // 2)), conversation_id="d")


async def test_the_tokens_of_a_history_are_known_without_reading_it(
    redis_url: str, producer: Producer, results: Results
) -> None:
    """Of all that was answered, but no more than a prompt has room for; a turn that failed has changed nothing."""
    turn: dict[str, Any] = {"model": "m", "conversation_id": "c", "messages": [user("next")]}
    asked = GenerationRequest.model_validate(turn | {"sampling": {"max_tokens": 30}})
    async with AsyncProducer(redis_url) as ours:
        assert await ours.history_tokens(asked) == 0
        answer(results, say(producer, user("one")), "eins", 100, 20)
        assert await ours.history_tokens(asked) == 0, "nobody has noted the answer yet"
        producer.cancel(say(producer, user("two")))
        assert producer.conversation("c").tokens == await ours.history_tokens(asked) == 120
        for most, room in ((140, 110), (40, 20)):
            ours.conversation_terms = ConversationTerms(max_tokens=most)
            assert await ours.history_tokens(asked) == room


def test_a_conversation_lives_for_its_time_from_its_last_turn(redis_url: str, results: Results) -> None:
    """A day unless the producer says otherwise; then the id begins another one."""
    with redis.Redis.from_url(redis_url) as client, Producer(redis_url) as producer:
        producer.declare_model("m")
        first = say(producer, user("one"))
        assert 86_000 < client.ttl(keys.conversation(None, "c")) <= 86_400
        answer(results, first, "eins")
        producer.conversation_terms = ConversationTerms(expires_seconds=1)
        producer.result(first)
        eventually(lambda: not client.exists(keys.conversation(None, "c")), what="the end of the conversation")
        with pytest.raises(UnknownConversation, match="kept for its lifetime"):
            producer.conversation("c")
        assert asked(client, say(producer, user("anew"))) == [user("anew")]


def test_an_answer_outlives_its_result(client: redis.Redis, producer: Producer, results: Results) -> None:
    """When somebody waited for it, or read the conversation."""
    job = say(producer, user("one"))
    answer(results, job, "eins")
    producer.result(job)
    client.delete(keys.result(job.job_id), keys.job_record(job.job_id))
    assert history(producer) == [user("one"), assistant("eins")]


def test_every_tenant_has_conversations_of_its_own(client: redis.Redis, producer: Producer, results: Results) -> None:
    """Under any names; no tenant is one too."""
    tenants = [None, "a", "b", "a:c", "a%3Ac"]
    for tenant in tenants:
        answer(results, say(producer, user(str(tenant)), tenant=tenant), "yes")
    for tenant in tenants:
        assert history(producer, tenant=tenant) == [user(str(tenant)), assistant("yes")]
    assert producer.forget_conversation("c", "a")
    assert not producer.forget_conversation("c", "a")
    assert len(client.keys("fleet:conversation:*")) == len(tenants) - 1
    with pytest.raises(UnknownConversation):
        producer.conversation("c", "a")
    with pytest.raises(InvalidRequest, match="1 to 256 characters"):
        producer.conversation("")


def test_a_forgotten_conversation_begins_anew(client: redis.Redis, producer: Producer, results: Results) -> None:
    """Also while a turn is in progress, whose answer goes to nobody but who waits for it."""
    first = say(producer, user("one"))
    assert producer.forget_conversation("c")
    second = say(producer, user("two"))
    assert asked(client, second) == [user("two")]
    answer(results, first, "eins")
    assert producer.result(first).text == "eins"
    assert producer.conversation("c").open_job_id == second.job_id


def test_a_job_that_is_refused_is_no_turn(client: redis.Redis, producer: Producer) -> None:
    """Queued and noted together or not at all, whatever refuses it."""
    with pytest.raises(UnknownModel):
        say(producer, user("one"), model="other")
    producer.set_queue_limit("m", 0)
    with pytest.raises(QueueFull):
        say(producer, user("one"))
    producer.set_queue_limit("m", None)
    client.set(keys.QueueKeys("m").waiting, "a stranger's")
    with pytest.raises(SubmitFailed, match="WRONGTYPE"):
        say(producer, user("one"))
    assert client.keys("fleet:conversation:*") == client.keys("fleet:job:*") == []
    client.delete(keys.QueueKeys("m").waiting)
    client.set(keys.conversation(None, "c"), "a stranger's")
    with pytest.raises(SubmitFailed, match="WRONGTYPE"):
        say(producer, user("one"))
    assert queued(client) == []


def test_a_submit_that_is_sent_twice_is_one_turn(client: redis.Redis, producer: Producer, results: Results) -> None:
    """The reply was lost: the same run again changes nothing, at once and when later turns were noted."""
    turn = GenerationRequest.model_validate({"model": "m", "messages": [user("one")], "conversation_id": "c"})
    empty = History(keys.conversation(None, "c"), {})
    job = prepare_turn(turn, *empty.next_turn(turn, producer.conversation_terms))
    run = enqueue_run([job], Destination(0))
    first, again = (
        read_reply(job, client.eval(run.script.text, len(run.keys), *run.keys, *run.arguments)) for _ in range(2)
    )  # type: ignore[arg-type]  # the library's hints
    assert first == again
    assert len(queued(client)) == 1
    answer(results, first, "eins")
    second = say(producer, user("two"))
    before = client.hgetall(keys.conversation(None, "c"))
    assert read_reply(job, client.eval(run.script.text, len(run.keys), *run.keys, *run.arguments)) == first  # type: ignore[arg-type]  # the library's hints
    assert client.hgetall(keys.conversation(None, "c")) == before
    assert asked(client, second) == [user("one"), assistant("eins"), user("two")]


def test_of_two_turns_at_once_one_is_first(client: redis.Redis, producer: Producer) -> None:
    """Both were made of the same history: the second is refused by the script, and is not queued."""
    turn = GenerationRequest.model_validate({"model": "m", "messages": [user("one")], "conversation_id": "c"})
    empty = History(keys.conversation(None, "c"), {})
    jobs = [prepare_turn(turn, *empty.next_turn(turn, producer.conversation_terms)) for _ in range(2)]
    runs = [enqueue_run([job], Destination(0)) for job in jobs]
    replies = [client.eval(run.script.text, len(run.keys), *run.keys, *run.arguments) for run in runs]
    assert read_reply(jobs[0], replies[0]).job_id == jobs[0].job_id  # type: ignore[arg-type]  # the library's hints
    with pytest.raises(TurnInProgress):
        read_reply(jobs[1], replies[1])  # type: ignore[arg-type]  # the library's hints
    assert [message["headers"]["id"] for message in queued(client)] == [jobs[0].job_id]


def test_text_that_has_no_utf8_is_kept_too(producer: Producer, results: Results) -> None:
    """A lone surrogate is legal in Python and, escaped, in JSON."""
    job = say(producer, user("one \ud800"), conversation_id="c \0 ü")
    answer(results, job, "ünë \u0000 \U0001f600")
    known = producer.conversation("c \0 ü")
    assert [message.content for message in known.messages] == ["one \ud800", "ünë \u0000 \U0001f600"]


def test_turns_are_submitted_one_by_one(producer: Producer) -> None:
    """Elsewhere they are refused, not taken without their history."""
    turn = {"model": "m", "messages": [user("one")], "conversation_id": "c"}
    [outcome] = producer.submit_many([turn])
    assert "one by one" in str(outcome.error)
    [mapped] = producer.map([turn])
    assert mapped.failure is not None
    assert "one by one" in mapped.failure.message
    with pytest.raises(InvalidRequest, match="expires_seconds"):
        ConversationTerms(expires_seconds=0)


def test_a_turn_that_called_a_tool_is_followed_by_the_tools_answer(
    producer: Producer, results: Results, client: redis.Redis
) -> None:
    """The call stays in the history; an answer to a call that has left it, or to none, is refused."""
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    tool = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}
    with pytest.raises(InvalidRequest, match="the call that this turn answers is not in the conversation"):
        say(producer, tool)
    first = say(producer, user("How is Oslo?"))
    result = generation_result(first.job_id, "")
    choice = result.choices[0].model_copy(update={"tool_calls": (ToolCall.model_validate(call),)})
    stored = result.model_copy(update={"choices": (choice,)})
    results.store(first.job_id, stored.model_dump(mode="json"), "SUCCESS")
    second = say(producer, tool)
    assert asked(client, second) == [user("How is Oslo?"), assistant("") | {"tool_calls": [call]}, tool]
    assert producer.conversation("c").turns[0].tool_calls == (ToolCall.model_validate(call),)
    answer(results, second, "Wet.")
    third = say(producer, user("And Rome?"))
    assert [message["role"] for message in asked(client, third)] == ["user", "assistant", "tool", "assistant", "user"]
    answer(results, third, "Dry.", prompt_tokens=4000, completion_tokens=2000)
    producer.conversation_terms = ConversationTerms(max_tokens=300)
    with pytest.raises(InvalidRequest, match="the call that this turn answers"):
        say(producer, tool)


def test_a_turn_may_name_its_model_by_another_name(producer: Producer, client: redis.Redis) -> None:
    """It is one turn, of the model's own queue, and one job when it is sent again."""
    producer.set_alias("other", "m")
    key = {"idempotency_key": "k"}
    first, again = (say(producer, user("Hi"), model="other", **key) for _ in range(2))
    assert (again.job_id, again.duplicate) == (first.job_id, True)
    assert asked(client, first) == [user("Hi")]
    assert producer.conversation("c").open_job_id == first.job_id
