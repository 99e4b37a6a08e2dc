"""Structured outputs: what vLLM writes has the shape that was asked for, random weights or not."""

import asyncio
import json
import re
from typing import Any, Final

import pytest

from producer.contract import FailureCode, ResponseFormat
from tests.contracts.asking import answer, request
from workers.engine.base import RequestRejected
from workers.engine.simulated import SimulatedEngine
from workers.engine.vllm_engine import VllmEngine

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"done": {"type": "boolean"}, "colour": {"enum": ["red", "green"]}},
    "required": ["done", "colour"],
    "additionalProperties": False,
}


async def written(engine: VllmEngine, prompt: str, response_format: ResponseFormat) -> str:
    """The text that the engine writes in this shape."""
    wanted = request(prompt, asked={"response_format": response_format}, max_tokens=60, temperature=0.8, seed=3)
    choice = await answer(engine, wanted)
    assert choice.finish_reason == "stop"
    return choice.text


@pytest.mark.vllm
async def test_a_json_schema_is_followed(vllm_engine: VllmEngine) -> None:
    """The text is JSON with exactly the schema's properties."""
    value = json.loads(
        await written(vllm_engine, "is it done?", ResponseFormat(type="json_schema", json_schema=SCHEMA))
    )
    assert isinstance(value["done"], bool)
    assert value["colour"] in ("red", "green")
    assert set(value) == {"done", "colour"}


@pytest.mark.vllm
async def test_a_choice_is_one_of_the_given_texts(vllm_engine: VllmEngine) -> None:
    """Nothing but the choice is written."""
    choices = ("accept", "refuse", "ask again")
    assert await written(vllm_engine, "decide", ResponseFormat(type="choice", choices=choices)) in choices


@pytest.mark.vllm
async def test_a_regular_expression_matches_the_whole_text(vllm_engine: VllmEngine) -> None:
    """From the first character to the last."""
    text = await written(vllm_engine, "when?", ResponseFormat(type="regex", regex=r"20[0-9]{2}-[01][0-9]"))
    assert re.fullmatch(r"20[0-9]{2}-[01][0-9]", text)


@pytest.mark.vllm
async def test_a_json_object_begins_as_one(vllm_engine: VllmEngine) -> None:
    """Without a schema a random model need not come to an end, but it can only write JSON."""
    wanted = request("data", asked={"response_format": ResponseFormat(type="json_object")}, max_tokens=20)
    assert (await answer(vllm_engine, wanted)).text.startswith("{")


@pytest.mark.vllm
async def test_shapes_of_jobs_that_run_together_do_not_mix(vllm_engine: VllmEngine) -> None:
    """Each keeps its own, beside a job without any."""
    yes, no, free = await asyncio.gather(
        written(vllm_engine, "a", ResponseFormat(type="choice", choices=("yes",))),
        written(vllm_engine, "a", ResponseFormat(type="regex", regex="no{3}")),
        answer(vllm_engine, request("a", max_tokens=9, ignore_eos=True)),
    )
    assert (yes, no, free.token_count) == ("yes", "nooo", 9)


@pytest.mark.vllm
@pytest.mark.parametrize(
    "response_format",
    [
        ResponseFormat(type="regex", regex="(unclosed"),
        ResponseFormat(type="json_schema", json_schema={"type": "nonsense"}),
    ],
    ids=["regex", "json schema"],
)
async def test_a_shape_that_can_not_be_is_rejected_as_invalid(
    vllm_engine: VllmEngine, response_format: ResponseFormat
) -> None:
    """The engine says so before it generates, and lives on."""
    with pytest.raises(RequestRejected) as caught:
        await answer(vllm_engine, request("x", asked={"response_format": response_format}))
    assert caught.value.code is FailureCode.INVALID_REQUEST
    await vllm_engine.check_health()


async def test_the_simulated_engine_rejects_what_it_can_not_shape(simulated_engine: SimulatedEngine) -> None:
    """It does not pretend."""
    with pytest.raises(RequestRejected, match="json_object"):
        await answer(simulated_engine, request("x", asked={"response_format": ResponseFormat(type="json_object")}))
