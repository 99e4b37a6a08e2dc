"""OpenAI's own client against the gateway with the real engine behind it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.gateways import running_gateway
from tests.running import VLLM_OPTIONS, RunningFleet

USER: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why queues?"}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"type": "boolean"}},
    "required": ["answer"],
    "additionalProperties": False,
}


@pytest.fixture
def client(redis_url: str, tmp_path: Path, tiny_model: Path) -> Iterator[OpenAI]:
    """Of a gateway in front of a worker with vLLM."""
    options = {f"engine.options.{name}": value for name, value in VLLM_OPTIONS.items()}
    options |= {
        "engine.options.max_model_len": 512,
        "engine.options.structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    }
    with (
        RunningFleet(redis_url, tmp_path, str(tiny_model), options),
        running_gateway(redis_url, tmp_path) as address,
        OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


@pytest.mark.vllm
@pytest.mark.slow
def test_the_real_engine_serves_openais_client(client: OpenAI) -> None:
    """Chats by the model's own template, completions, streams, schemas, seeds, log probabilities and refusals."""
    create = client.chat.completions.create
    asked: dict[str, Any] = {"model": "tiny", "messages": USER, "temperature": 0, "max_tokens": 24}
    whole = create(**asked, logprobs=True, top_logprobs=3)
    [choice] = whole.choices
    assert choice.logprobs is not None
    assert len(choice.logprobs.content or ()) == (whole.usage.completion_tokens if whole.usage else None)
    chunks = list(create(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == choice.message.content
    assert chunks[-1].choices[0].finish_reason == choice.finish_reason

    schema: Any = {"type": "json_schema", "json_schema": {"name": "yes-or-no", "schema": SCHEMA, "strict": True}}
    shaped = create(**asked | {"max_tokens": 60}, response_format=schema)
    assert isinstance(json.loads(shaped.choices[0].message.content or "")["answer"], bool)

    completion: dict[str, Any] = {"model": "tiny", "prompt": "Once", "max_tokens": 12, "temperature": 0}
    text = client.completions.create(**completion).choices[0].text
    assert "".join(one.choices[0].text for one in client.completions.create(**completion, stream=True)) == text

    drawn = create(**asked | {"temperature": 1.0}, n=2)
    assert [one.index for one in drawn.choices] == [0, 1]
    stop = (choice.message.content or "")[4:6]
    stopped = create(**asked, stop=[stop])
    assert stopped.choices[0].finish_reason == "stop"
    assert stop not in (stopped.choices[0].message.content or "")
    with pytest.raises(openai.BadRequestError) as too_long:
        create(**asked | {"messages": [{"role": "user", "content": "word " * 3000}]})
    assert too_long.value.code == "context_length_exceeded"
