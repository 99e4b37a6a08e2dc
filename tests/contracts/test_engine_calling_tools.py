"""Tool calls: what an engine writes is told apart by vLLM's own parsers, or held to a shape and read by ours."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

import pytest

from producer.contract import FailureCode, GenerationRequest
from tests.contracts.asking import answer, increments, request, streamed
from tests.contracts.test_engine_rendering import renderer_of
from workers.engine.base import (
    Begun,
    ChoiceIncrement,
    Engine,
    EngineConfig,
    EngineOptionsInvalid,
    Increment,
    RequestRejected,
)
from workers.engine.simulated import SimulatedEngine
from workers.engine.vllm_engine import VllmEngine
from workers.engine.vllm_requests import rendered, sampling_params
from workers.engine.vllm_tools import VllmTools, parser_class

pytestmark = pytest.mark.asyncio(loop_scope="session")

HELLO: Final = {"role": "user", "content": "hello"}
COLOUR: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "paint",
        "parameters": {
            "type": "object",
            "properties": {"colour": {"enum": ["red", "green"]}},
            "required": ["colour"],
            "additionalProperties": False,
        },
    },
}
CALL: Final = '<tool_call>\n{"name": "paint", "arguments": {"colour": "red"}}\n</tool_call>'


def asking(**fields: Any) -> GenerationRequest:  # noqa: ANN401 - whatever the field takes
    """A chat with one tool."""
    return request(asked={"messages": [HELLO], "tools": [COLOUR]} | fields, max_tokens=100, temperature=0.0)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "paint"}}])
async def test_a_forced_call_holds_to_its_schema(engine: Engine, choice: object) -> None:
    """Whatever the weights; streamed, it comes whole with the end, and what it was written in is never text."""
    wanted = asking(tool_choice=choice)
    whole = await answer(engine, wanted)
    assert whole.tool_calls is not None
    [call] = whole.tool_calls
    assert call.function.name == "paint"
    assert json.loads(call.function.arguments)["colour"] in ("red", "green")
    assert (whole.text, whole.finish_reason) == ("", "tool_calls" if choice == "required" else "stop")
    told = [one async for increment in increments(engine, streamed(wanted)) for one in increment.choices]
    assert [one.text for one in told] == [""]
    assert [one.function for one in told[-1].tool_calls or ()] == [call.function]
    assert sum(one.token_count for one in told) == whole.token_count


async def test_nobody_decides_without_a_parser(engine: Engine) -> None:
    """The refusal names the setting, and nothing runs."""
    with pytest.raises(RequestRejected, match=r"engine\.tool_call_parser") as caught:
        await answer(engine, asking())
    assert caught.value.code is FailureCode.INVALID_REQUEST
    assert (await answer(engine, asking(tool_choice="none"))).tool_calls is None


@pytest.mark.parametrize("kind", [SimulatedEngine, pytest.param(VllmEngine, marks=pytest.mark.vllm)])
@pytest.mark.usefixtures("vllm_environment")
async def test_a_parser_that_does_not_exist_ends_the_start(kind: type[Engine], tiny_model: Path) -> None:
    """Before a model is loaded, with what there is."""
    engine = kind(EngineConfig(str(tiny_model), "tiny", tool_call_parser="hermess"))  # type: ignore[call-arg]
    with pytest.raises(EngineOptionsInvalid, match=r"hermes|simulated"):
        await engine.start()
    await engine.close()


@pytest.mark.vllm
@pytest.mark.usefixtures("vllm_environment")
async def test_the_template_shows_tools_calls_and_answers(tiny_model: Path) -> None:
    """As vLLM's server gives them to it; arguments are an object there."""
    call = {"id": "1", "type": "function", "function": {"name": "paint", "arguments": '{"colour": "red"}'}}
    turns = [HELLO, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1", "content": "ok"}]
    llm = renderer_of(tiny_model)
    prompt: Any = await rendered(llm, asking(messages=turns, tool_choice="none"))
    lines = llm.renderer.tokenizer.decode(prompt["prompt_token_ids"]).splitlines()
    assert lines[0] == "<|begin|><|turn|>tools"
    assert json.loads(lines[1])["function"]["parameters"] == COLOUR["function"]["parameters"]
    assert json.loads(lines[6]) == {"name": "paint", "arguments": {"colour": "red"}}
    assert lines[7:] == ["<|turn|>tool", "ok", "<|turn|>assistant"]


@pytest.fixture(params=["hermes", "qwen3_xml"])
def written(request: pytest.FixtureRequest) -> tuple[str, list[str]]:
    """A parser, one that reads text and one of vLLM's newer kind, and a call as its models write it."""
    markup = {
        "hermes": CALL,
        "qwen3_xml": "<tool_call>\n<function=paint>\n<parameter=colour>\nred\n</parameter>\n</function>\n</tool_call>",
    }[request.param]
    return request.param, ["I ", "will ", "paint", ".", *(markup[at : at + 3] for at in range(0, len(markup), 3))]


async def read(llm: Any, parser: str, wanted: GenerationRequest, pieces: list[str], begun: Begun | None = None) -> Any:  # noqa: ANN401 - the part of an AsyncLLM that parsing needs
    """What is told when the model writes these."""
    job = VllmTools(llm, parser).job(wanted, sampling_params(wanted))
    assert job is not None
    encode = llm.renderer.tokenizer.encode

    async def generated() -> AsyncGenerator[Increment, None]:
        for at, piece in enumerate(pieces):
            ids = tuple(encode(piece, add_special_tokens=False))
            finish = "stop" if at == len(pieces) - 1 else None
            yield Increment((ChoiceIncrement(0, piece, len(ids), finish, token_ids=ids),), 1)

    return [one async for increment in job.splitter([0], begun).split(generated()) for one in increment.choices]


@pytest.mark.vllm
@pytest.mark.usefixtures("vllm_environment")
async def test_vllms_parser_tells_text_and_calls_apart(tiny_model: Path, written: tuple[str, list[str]]) -> None:
    """Whole, streamed, and by another attempt that goes on in the middle of the text."""
    parser, pieces = written
    llm = renderer_of(tiny_model)
    [whole] = await read(llm, parser, asking(), ["".join(pieces)])
    *texts, last = await read(llm, parser, streamed(asking()), pieces)
    *others, end = await read(llm, parser, streamed(asking()), pieces[2:], Begun((5, 6), "".join(pieces[:2])))
    assert whole.text.rstrip() == "".join(one.text for one in texts) == "I will paint."
    assert "".join(one.text for one in others) == "paint."
    for one in (whole, last, end):
        assert one.finish_reason == "tool_calls"
        [call] = one.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("paint", {"colour": "red"})


@pytest.mark.vllm
@pytest.mark.usefixtures("vllm_environment")
async def test_markup_of_a_call_that_was_cut_off_is_not_text(tiny_model: Path, written: tuple[str, list[str]]) -> None:
    """Whole or streamed, decided or forced."""
    parser, pieces = written
    llm = renderer_of(tiny_model)
    cut = [*pieces[:-8], ""]
    for wanted, text in ((asking(), "I will paint."), (asking(tool_choice="required"), "")):
        [whole] = await read(llm, parser, wanted, ["".join(cut)])
        told = await read(llm, parser, streamed(wanted), cut)
        assert whole.text.rstrip() == "".join(one.text for one in told) == text
        assert bool(whole.tool_calls) == bool(told[-1].tool_calls)  # some parsers make a call of what there is


@pytest.mark.vllm
@pytest.mark.usefixtures("vllm_environment")
async def test_every_parser_of_vllms_can_be_named() -> None:
    """Each is found, or says what to install for it."""
    from vllm.tool_parsers import ToolParserManager

    found, refused = [], []
    for name in ToolParserManager.list_registered():
        try:
            found.append(parser_class(name))
        except EngineOptionsInvalid as error:
            refused.append(str(error))
    assert all("pip install" in sentence for sentence in refused)
    assert len(found) > 10 * len(refused)
    assert None not in found
    assert parser_class("") is None
