"""Prompts that vLLM's renderer can not turn into tokens; no engine has to run for these."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from producer.contract import FailureCode, GenerationRequest
from tests.contracts.asking import request
from workers.engine.base import EngineConfig, RequestRejected
from workers.engine.vllm_launch import configured
from workers.engine.vllm_requests import rendered

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

HELLO = [{"role": "user", "content": "hello"}]


def renderer_of(model: Path) -> Any:  # noqa: ANN401 - the part of an AsyncLLM that rendering needs
    """VLLM's renderer for this model, without an engine."""
    from vllm.renderers import renderer_from_config

    _, config = configured(EngineConfig(str(model), "tiny", {"dtype": "float32", "enforce_eager": True}))
    return SimpleNamespace(renderer=renderer_from_config(config), model_config=config.model_config)


def without_chat_template(tiny_model: Path, folder: Path) -> Path:
    """A copy of the tiny model that can not chat."""
    model = Path(shutil.copytree(tiny_model, folder / "model"))
    settings = json.loads((model / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    return model


async def rejection(llm: Any, wanted: GenerationRequest) -> RequestRejected:  # noqa: ANN401 - as above
    """Why this request is rejected."""
    with pytest.raises(RequestRejected) as caught:
        await rendered(llm, wanted)
    return caught.value


@pytest.mark.usefixtures("vllm_environment")
async def test_messages_for_a_model_without_chat_template_are_rejected(tiny_model: Path, tmp_path: Path) -> None:
    """The message says what is missing, and what to send instead; a prompt still works."""
    llm = renderer_of(without_chat_template(tiny_model, tmp_path))
    error = await rejection(llm, request(asked={"messages": HELLO}))
    assert error.code is FailureCode.INVALID_REQUEST
    assert "no chat template" in str(error)
    assert (await rendered(llm, request("hello")))["type"] == "token"


@pytest.mark.usefixtures("vllm_environment")
async def test_half_a_character_is_rejected_in_words(tiny_model: Path) -> None:
    """JSON can hold a lone surrogate, a tokenizer can not."""
    llm = renderer_of(tiny_model)
    for wanted in (request("\ud800"), request(asked={"messages": [{"role": "user", "content": "ab\udc00"}]})):
        error = await rejection(llm, wanted)
        assert error.code is FailureCode.INVALID_REQUEST
        assert "surrogate" in str(error)


@pytest.mark.usefixtures("vllm_environment")
async def test_the_models_own_template_asks_for_the_assistants_turn(tiny_model: Path) -> None:
    """The prompt ends where the answer begins, and has one beginning."""
    llm = renderer_of(tiny_model)
    prompt: Any = await rendered(llm, request(asked={"messages": HELLO}))
    ids = prompt["prompt_token_ids"]
    text = llm.renderer.tokenizer.decode(ids)
    assert text == "<|begin|><|turn|>user\nhello\n<|turn|>assistant\n"
    assert ids.count(0) == 1
