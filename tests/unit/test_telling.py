"""A streamed job's attempts: what each tells, and how it goes on from what earlier ones told."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from producer.contract import GenerationRequest, ResponseFormat, TokenLogprob
from producer.stream_entries import RESTARTED, Piece, Said, encode
from tests.contracts.asking import request, streamed
from workers.engine.base import ChoiceIncrement, EngineConfig, EngineRequest, Increment
from workers.engine.simulated import SimulatedEngine
from workers.inference.generate import Gathered
from workers.inference.telling import Telling, generate_telling, may_go_on

GREEDY: dict[str, Any] = {"max_tokens": 9, "temperature": 0.0, "ignore_eos": True}


@dataclass
class Readers:
    """What readers heard, entry by entry."""

    entries: list[bytes] = field(default_factory=list)

    async def said(self) -> Said:
        """Everything."""
        return self.said_of(len(self.entries))

    def said_of(self, count: int) -> Said:
        """The first entries."""
        said = Said()
        for entry in self.entries[:count]:
            said.take(entry)
        return said

    def tell(self, pieces: Sequence[Piece], prompt_tokens: int) -> None:
        """An entry for each call."""
        self.entries.append(encode(pieces, prompt_tokens))

    def restart(self) -> None:
        """As the worker writes it."""
        self.entries.append(RESTARTED)

    def close(self) -> None:
        """Nothing is held back here."""


@pytest.fixture
async def engine() -> AsyncIterator[SimulatedEngine]:
    """Runs."""
    engine = SimulatedEngine(EngineConfig("none", "tiny", {"seconds_per_token": 0.0}))
    await engine.start()
    yield engine
    await engine.close()


async def attempt(engine: SimulatedEngine, wanted: GenerationRequest, readers: Readers, said: Said) -> Gathered:
    """One attempt that knows what ``said`` has."""
    return await generate_telling(engine, EngineRequest("a", streamed(wanted)), Telling(readers, said), None)


async def test_a_first_attempt_tells_everything(engine: SimulatedEngine) -> None:
    """Token by token, with the size of the prompt; what it returns is what it told."""
    readers = Readers()
    gathered = await attempt(engine, request("go on", **GREEDY, logprobs=1), readers, Said())
    said = await readers.said()
    assert len(readers.entries) == 9
    assert (said.choices[0].text, said.prompt_tokens) == (gathered.choices[0].text, 2)
    assert tuple(said.choices[0].logprobs or ()) == gathered.choices[0].logprobs
    assert said.choices[0].finish_reason == gathered.choices[0].finish_reason == "length"


@pytest.mark.parametrize("count", [1, 4, 8])
async def test_the_next_attempt_tells_what_is_missing(engine: SimulatedEngine, count: int) -> None:
    """And returns the whole, as if it had done it alone."""
    wanted = request("go on", **GREEDY, logprobs=1)
    first, second = Readers(), Readers()
    alone = await attempt(engine, wanted, first, Said())
    gathered = await attempt(engine, wanted, second, first.said_of(count))
    assert (gathered.choices, gathered.prompt_tokens) == (alone.choices, alone.prompt_tokens)
    assert second.entries == first.entries[count:]


async def test_tokens_that_had_said_nothing_and_are_told_again_count_once() -> None:
    """The result has those of the last attempt, and readers keep what they know of them."""
    readers = Readers()
    one, two, half, whole = (
        TokenLogprob(token=name, token_id=number, logprob=-1.0)
        for number, name in enumerate(("so", "me", "half", "whole"), start=1)
    )
    first = ChoiceIncrement(0, "some", 3, None, (one, two, half), (1, 2, 3))
    Telling(readers, Said()).add(Increment((first,), 2))
    last = Telling(readers, await readers.said())
    again = ChoiceIncrement(0, "how", 2, "length", (half, whole), (3, 4), retold_tokens=1)
    last.add(Increment((again,), 2))
    [choice] = last.gathered.choices.values()
    assert (choice.text, choice.token_count, choice.logprobs) == ("somehow", 4, (one, two, half, whole))
    said = (await readers.said()).choices[0]
    assert (said.text, said.token_ids, said.logprobs) == ("somehow", [1, 2, 3, 4], [one, two, half, whole])


async def test_when_all_was_told_nothing_is_generated(engine: SimulatedEngine) -> None:
    """Only the result was missing: an engine that is gone does not matter."""
    wanted, readers = request("go on", **GREEDY), Readers()
    alone = await attempt(engine, wanted, readers, Said())
    await engine.close()
    gathered = await attempt(engine, wanted, readers, await readers.said())
    assert (gathered.choices, gathered.prompt_tokens) == (alone.choices, alone.prompt_tokens)
    assert len(readers.entries) == 9


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(request("go on", **GREEDY, presence_penalty=0.5), id="penalty"),
        pytest.param(request("go on", **GREEDY | {"temperature": 1.0, "n": 2}), id="choices"),
        pytest.param(request("other words", **GREEDY), id="other text"),
    ],
)
async def test_what_can_not_go_on_begins_anew_and_says_so_once(
    engine: SimulatedEngine, wanted: GenerationRequest
) -> None:
    """Readers forget what they heard; the answer is the new attempt's alone."""
    readers, alone = Readers(), Readers()
    await attempt(engine, request("go on", **GREEDY), readers, Said())
    gathered = await attempt(engine, wanted, readers, readers.said_of(3))
    expected = await attempt(engine, wanted, alone, Said())
    assert gathered.choices == expected.choices
    assert readers.entries[9:] == [RESTARTED, *alone.entries]


async def test_behind_a_gap_nobody_goes_on(engine: SimulatedEngine) -> None:
    """What is missing could not be told any more."""
    wanted, readers = request("go on", **GREEDY), Readers()
    await attempt(engine, wanted, readers, Said())
    del readers.entries[0]
    said = await readers.said()
    assert said.has_gap
    gathered = await attempt(engine, wanted, readers, said)
    assert readers.entries[8] == RESTARTED
    assert gathered.choices[0].token_count == 9


@pytest.mark.parametrize(
    ("wanted", "may"),
    [
        (request("x"), True),
        (request("x", temperature=1.0, seed=3), True),
        (request("x", repetition_penalty=1.2), True),
        (request("x", frequency_penalty=0.1), False),
        (request("x", n=2), False),
        (request("x", asked={"response_format": ResponseFormat(type="json_object")}), False),
        (request("x", asked={"response_format": ResponseFormat(type="text")}), True),
    ],
)
def test_an_answer_may_go_on_where_its_tokens_as_prompt_change_nothing(wanted: GenerationRequest, *, may: bool) -> None:
    """A repetition penalty looks at the prompt too; the others at the output alone."""
    assert may_go_on(wanted) is may
