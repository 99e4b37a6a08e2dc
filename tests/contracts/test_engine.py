"""What every engine does: the specification of the seam, run on the simulated engine and on vLLM."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from producer.contract import FailureCode
from tests.contracts.asking import ENDLESS, GROUP, answer, attempt, increments, only, request, streamed, whole
from workers.engine.base import Engine, RequestRejected

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def rejection(engine: Engine, **asked: Any) -> RequestRejected:  # noqa: ANN401 - whatever the field takes
    """How the engine rejects this request."""
    with pytest.raises(RequestRejected) as caught:
        await whole(engine, request(**asked))
    return caught.value


async def test_an_answer_has_text_tokens_and_a_reason_for_its_end(engine: Engine) -> None:
    """One increment with one choice, and the size of the prompt."""
    increment = await whole(engine, request("the quick brown fox", max_tokens=12, ignore_eos=True, temperature=0.0))
    (choice,) = increment.choices
    assert choice.text
    assert (choice.index, choice.token_count, choice.finish_reason) == (0, 12, "length")
    assert choice.logprobs is None
    assert increment.prompt_tokens >= 4
    assert increment.cached_tokens <= increment.prompt_tokens
    assert increment.first_token_seconds is not None
    assert increment.first_token_seconds > 0


async def test_greedy_answers_do_not_depend_on_what_runs_beside_them(engine: Engine) -> None:
    """Each prompt's greedy text is the same alone and amid sampled neighbours."""
    prompts = ["one two three", "a queue keeps work", "what is the name", "write a short story"]
    greedy = [request(prompt, max_tokens=24, temperature=0.0) for prompt in prompts]
    alone = [await answer(engine, wanted) for wanted in greedy]
    neighbours = [request("the day", max_tokens=30, temperature=1.0 + step / 10, seed=step) for step in range(8)]
    together = await asyncio.gather(*(answer(engine, wanted) for wanted in [*greedy, *neighbours]))
    assert list(together[: len(greedy)]) == alone
    assert len({choice.text for choice in alone}) == len(prompts)


async def test_every_job_keeps_its_own_sampling_options(engine: Engine) -> None:
    """Jobs that run together end at their own lengths and draw with their own temperatures and seeds."""
    lengths = [1, 7, 19, 40]
    counted = [request("same prompt", max_tokens=length, ignore_eos=True) for length in lengths]
    sampled = [request("same prompt", max_tokens=16, ignore_eos=True, temperature=1.5, seed=seed) for seed in (1, 2)]
    choices = await asyncio.gather(*(answer(engine, wanted) for wanted in [*counted, *sampled, *sampled]))
    assert [choice.token_count for choice in choices[:4]] == lengths
    first, second, first_again, second_again = choices[4:]
    assert first == first_again
    assert second == second_again
    assert first.text != second.text


async def test_a_stop_string_ends_the_text_and_is_not_part_of_it(engine: Engine) -> None:
    """The text is cut before the first occurrence of a stop string."""
    options: dict[str, Any] = {"max_tokens": 40, "ignore_eos": True, "temperature": 0.0}
    text = (await answer(engine, request("the end of the day", **options))).text
    stop = next(text[at : at + 3] for at in range(4, len(text) - 3) if text[at : at + 3].isascii())
    choice = await answer(engine, request("the end of the day", stop=(stop,), **options))
    assert choice.text == text[: text.index(stop)]
    assert choice.finish_reason == "stop"
    assert choice.token_count <= 40


async def test_n_choices_come_back_numbered_and_drawn_apart(engine: Engine) -> None:
    """Three choices of one prompt, each with its own text."""
    increment = await whole(engine, request("tell me more", n=3, max_tokens=20, ignore_eos=True, seed=7))
    assert [choice.index for choice in increment.choices] == [0, 1, 2]
    assert [choice.token_count for choice in increment.choices] == [20, 20, 20]
    assert len({choice.text for choice in increment.choices}) == 3


async def test_logprobs_name_each_drawn_token_and_the_likeliest_ones(engine: Engine) -> None:
    """Greedy draws the likeliest token, and as many alternatives stand beside it as were asked for."""
    choice = await answer(engine, request("the river", logprobs=3, max_tokens=6, ignore_eos=True, temperature=0.0))
    assert choice.logprobs is not None
    assert len(choice.logprobs) == 6
    for drawn in choice.logprobs:
        assert drawn.logprob <= 0
        assert len(drawn.top) == 3
        assert drawn.top[0].token_id == drawn.token_id
        assert [entry.logprob for entry in drawn.top] == sorted((entry.logprob for entry in drawn.top), reverse=True)


async def test_logprobs_of_zero_names_the_drawn_tokens_alone(engine: Engine) -> None:
    """No alternatives were asked for, and none come."""
    choice = await answer(engine, request("the river", logprobs=0, max_tokens=4, ignore_eos=True))
    assert choice.logprobs is not None
    assert [drawn.top for drawn in choice.logprobs] == [()] * 4


async def test_a_prompt_of_token_ids_is_taken_as_it_is(engine: Engine) -> None:
    """Nothing is added to token ids."""
    increment = await whole(engine, request(asked={"prompt_token_ids": (5, 6, 7, 8)}, max_tokens=2, ignore_eos=True))
    assert increment.prompt_tokens == 4


async def test_messages_are_rendered_as_a_conversation(engine: Engine) -> None:
    """Roles and all turns count: another turn is another prompt."""
    short = [{"role": "user", "content": "one two three"}]
    longer = [{"role": "system", "content": "be brief"}, *short]
    options: dict[str, Any] = {"max_tokens": 16, "ignore_eos": True, "temperature": 0.0}
    first = await whole(engine, request(asked={"messages": short}, **options))
    second = await whole(engine, request(asked={"messages": longer}, **options))
    plain = await whole(engine, request("one two three", **options))
    assert plain.prompt_tokens < first.prompt_tokens < second.prompt_tokens
    assert first.choices[0].text != plain.choices[0].text


async def test_a_text_of_any_language_is_a_prompt(engine: Engine) -> None:
    """Whatever UTF-8 can say."""
    choice = await answer(engine, request("Größe 大小 🌊 \u0000 \t", max_tokens=3, ignore_eos=True))
    assert choice.token_count == 3


async def test_the_output_ends_where_the_context_does(engine: Engine) -> None:
    """A prompt may leave room for one token only."""
    longest = engine.capacity().max_model_len - 1
    increment = await whole(engine, request(asked={"prompt_token_ids": (9,) * longest}, max_tokens=50, ignore_eos=True))
    assert increment.prompt_tokens == longest
    assert (increment.choices[0].token_count, increment.choices[0].finish_reason) == (1, "length")


@pytest.mark.parametrize(
    "asked",
    [
        {"prompt": "word " * 2_000},
        {"asked": {"prompt_token_ids": (9,) * 512}},
        {"asked": {"prompt_token_ids": (9,) * 5_000}},
        {"asked": {"messages": [{"role": "user", "content": "word " * 600}]}},
    ],
    ids=["text", "as many token ids as the context", "many token ids", "messages"],
)
async def test_a_prompt_that_fills_the_context_is_rejected_with_both_sizes(
    engine: Engine, asked: dict[str, Any]
) -> None:
    """The message names a size and the most that is taken."""
    error = await rejection(engine, **asked)
    assert error.code is FailureCode.CONTEXT_LENGTH_EXCEEDED
    assert "511" in str(error)
    assert "\n" not in str(error)


async def test_a_prompt_of_four_megabytes_does_not_disturb_the_others(engine: Engine) -> None:
    """It is rejected, and the jobs around it are answered."""
    small = [request(f"small {number}", max_tokens=8, ignore_eos=True) for number in range(4)]
    refused = asyncio.create_task(rejection(engine, prompt="four " * 800_000))
    answered = await asyncio.gather(*(answer(engine, wanted) for wanted in small))
    assert (await refused).code is FailureCode.CONTEXT_LENGTH_EXCEEDED
    assert [choice.token_count for choice in answered] == [8] * 4


@pytest.mark.parametrize(
    "asked",
    [
        {"prompt": "x", "min_tokens": 9, "max_tokens": 4},
        {"prompt": "x", "n": 2, "temperature": 0.0},
        {"asked": {"prompt_token_ids": (1, 10_000_000)}},
    ],
    ids=["min above max", "greedy choices", "token id out of vocabulary"],
)
async def test_a_request_that_can_never_work_is_rejected_as_invalid(engine: Engine, asked: dict[str, Any]) -> None:
    """The engine says why in one line, and goes on."""
    error = await rejection(engine, **asked)
    assert error.code is FailureCode.INVALID_REQUEST
    assert str(error)
    assert "\n" not in str(error)
    assert (await answer(engine, request("and on", max_tokens=2, ignore_eos=True))).token_count == 2


async def test_streamed_increments_add_up_to_the_whole_answer(engine: Engine) -> None:
    """Text and token counts are what is new, and only the last increment has a reason."""
    wanted = request("the light at the end", max_tokens=20, ignore_eos=True, temperature=0.0, logprobs=1)
    expected = await answer(engine, wanted)
    parts = [choice async for increment in increments(engine, streamed(wanted)) for choice in increment.choices]
    assert len(parts) > 1
    assert "".join(part.text for part in parts) == expected.text
    assert sum(part.token_count for part in parts) == expected.token_count
    assert [part.finish_reason for part in parts] == [None] * (len(parts) - 1) + ["length"]
    assert sum(len(part.logprobs or ()) for part in parts) == 20


async def test_an_aborted_attempt_ends_as_aborted_and_the_others_go_on(engine: Engine) -> None:
    """Aborting what holds every slot lets the waiting one run."""
    running = [attempt(request(f"long {number}", **ENDLESS)) for number in range(engine.capacity().max_num_seqs)]
    tasks = [asyncio.create_task(only(engine, one)) for one in running]
    waiting = asyncio.create_task(answer(engine, request("short", max_tokens=3, ignore_eos=True)))
    await asyncio.sleep(0)
    for one in running:
        await engine.abort(one.attempt_id)
    for increment in await asyncio.gather(*tasks):
        assert increment.choices[0].finish_reason == "abort"
        assert increment.choices[0].token_count < ENDLESS["max_tokens"]
    assert (await waiting).token_count == 3


async def test_an_abort_reaches_an_attempt_in_the_middle_of_its_text(engine: Engine) -> None:
    """The iterator ends by itself, with what was written so far."""
    one = attempt(streamed(request("never ends", **ENDLESS)))
    count, reason = 0, None
    async for increment in engine.generate(one):
        count += increment.choices[0].token_count
        reason = increment.choices[0].finish_reason
        await engine.abort(one.attempt_id)
    assert reason == "abort"
    assert 0 < count < ENDLESS["max_tokens"]


async def test_aborting_an_unknown_attempt_is_fine(engine: Engine) -> None:
    """Nothing happens to anybody."""
    task = asyncio.create_task(answer(engine, request("here", max_tokens=5, ignore_eos=True)))
    await engine.abort("nobody")
    assert (await task).token_count == 5


async def test_a_cancelled_task_frees_its_slot(engine: Engine) -> None:
    """Cancelling the consumers of every slot lets the waiting one run."""
    long = [streamed(request(f"long {number}", **ENDLESS)) for number in range(engine.capacity().max_num_seqs)]
    started = [asyncio.Event() for _ in long]

    async def consume(number: int) -> None:
        async for _ in increments(engine, long[number]):
            started[number].set()

    tasks = [asyncio.create_task(consume(number)) for number in range(len(long))]
    await asyncio.gather(*(event.wait() for event in started))
    waiting = asyncio.create_task(answer(engine, request("short", max_tokens=3, ignore_eos=True)))
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert (await waiting).token_count == 3


async def test_a_closed_iterator_frees_its_slot(engine: Engine) -> None:
    """Walking away from a stream is enough."""
    for number in range(2 * engine.capacity().max_num_seqs):
        async with aclosing(engine.generate(attempt(streamed(request(f"left {number}", **ENDLESS))))) as stream:
            await anext(stream)
    assert (await answer(engine, request("short", max_tokens=3, ignore_eos=True))).token_count == 3


async def test_more_jobs_than_slots_are_all_answered(engine: Engine) -> None:
    """The rest waits for its turn."""
    jobs = [request(f"job {number}", max_tokens=number % 5 + 1, ignore_eos=True) for number in range(40)]
    choices = await asyncio.gather(*(answer(engine, wanted) for wanted in jobs))
    assert [choice.token_count for choice in choices] == [number % 5 + 1 for number in range(40)]


async def test_patient_attempts_begin_together(engine: Engine) -> None:
    """A first one waits for a second, or for one without patience, or as long as it said; each is answered as alone."""
    asked = [request(f"job {number}", max_tokens=3, ignore_eos=True, temperature=0.0) for number in range(2)]
    alone = [await answer(engine, wanted) for wanted in asked]
    for others_patience_seconds in (3600.0, 0.0):
        first = asyncio.create_task(only(engine, attempt(asked[0], 3600.0)))
        await asyncio.sleep(0.2)
        assert not first.done()
        second = only(engine, attempt(asked[1], others_patience_seconds))
        together = await asyncio.wait_for(asyncio.gather(first, second), 30.0)
        assert [increment.choices[0] for increment in together] == alone
    unaccompanied = await asyncio.wait_for(only(engine, attempt(asked[0], 0.1)), 30.0)
    assert unaccompanied.choices[0] == alone[0]
    assert engine.capacity().refill_jobs == GROUP


async def test_an_abort_reaches_an_attempt_that_waits_for_others(engine: Engine) -> None:
    """It ends as aborted, without a token; who is cancelled there leaves nothing behind."""
    one = attempt(request("never begins", **ENDLESS), 3600.0)
    task = asyncio.create_task(only(engine, one))
    await asyncio.sleep(0.2)
    await engine.abort(one.attempt_id)
    choice = (await asyncio.wait_for(task, 30.0)).choices[0]
    assert (choice.finish_reason, choice.token_count) == ("abort", 0)
    cancelled = asyncio.create_task(only(engine, attempt(request("gone", **ENDLESS), 3600.0)))
    await asyncio.sleep(0.2)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert (await answer(engine, request("short", max_tokens=3, ignore_eos=True))).token_count == 3


async def test_a_running_engine_is_healthy_and_knows_its_size(engine: Engine) -> None:
    """Health and capacity as the options say."""
    await engine.check_health()
    assert (engine.capacity().max_num_seqs, engine.capacity().max_model_len) == (8, 512)
