"""What the gateway says of a body that is not what a route takes, and what it takes as left out."""

from typing import Any, get_type_hints

import pytest
from fastapi.exceptions import RequestValidationError
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from pydantic import BaseModel, ValidationError

from producer.contract import GenerationRequest, Priority
from producer.gateway.errors import BadParameter
from producer.gateway.findings import CONTENT, PROMPT, STOP, TOO_MANY_PROMPTS, refusal
from producer.gateway.openai_requests import ChatRequest, CompletionRequest
from producer.gateway.plain_routes import GenerateRequest
from producer.gateway.translation import chat_job, completion_jobs

USER: list[dict[str, Any]] = [{"role": "user", "content": "x"}]
IMAGE = {"type": "image_url", "image_url": {"url": "https://pictures.example/1"}}
COMPLETION: dict[str, Any] = {"model": "m", "prompt": "x"}
CHAT: dict[str, Any] = {"model": "m", "messages": USER}


def said(kind: type[BaseModel], body: Any) -> tuple[str, str, str | None]:  # noqa: ANN401 - whatever JSON holds
    """As the gateway says it."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    errors = [error | {"loc": ("body", *error["loc"])} for error in caught.value.errors()]
    error = RequestValidationError(errors, body=body)
    return refusal(error.errors(), error.body)


@pytest.mark.parametrize(
    ("kind", "changed", "parameter", "message"),
    [
        (CompletionRequest, {"stop": 5}, "stop", STOP),
        (CompletionRequest, {"stop": ["a"] * 5}, "stop", STOP),
        (CompletionRequest, {"stop": [""]}, "stop", STOP),
        (GenerateRequest, {"stop": ""}, "stop", STOP),
        (CompletionRequest, {"prompt": ["a"] * 1_001}, "prompt", TOO_MANY_PROMPTS),
        (CompletionRequest, {"prompt": [[1]] * 1_001}, "prompt", TOO_MANY_PROMPTS),
        (CompletionRequest, {"prompt": ["a", [1]]}, "prompt", PROMPT),
        (CompletionRequest, {"prompt": [[1], []]}, "prompt", PROMPT),
        (CompletionRequest, {"prompt": [1] * 2_000 + ["a"]}, "prompt", PROMPT),
        (CompletionRequest, {"prompt": []}, "prompt", PROMPT),
        (CompletionRequest, {"prompt": 5}, "prompt", PROMPT),
        (CompletionRequest, {"prompt": [1, -1]}, "prompt", PROMPT),
        (GenerateRequest, {"prompt": 5}, "prompt", "Input should be a valid string"),
        (ChatRequest, {"messages": [{"role": "user", "content": [IMAGE]}]}, "messages.0.content.0", CONTENT),
        (ChatRequest, {"messages": [*USER, {"role": "user", "content": 5}]}, "messages.1.content", CONTENT),
        (ChatRequest, {"messages": [{"content": "x"}]}, "messages.0.role", "Field required"),
        (ChatRequest, {"tool_choice": "always"}, "tool_choice", "Input should be 'none', 'auto' or 'required'"),
        (ChatRequest, {"tool_choice": {"type": "x"}}, "tool_choice.type", "Input should be 'function'"),
        (ChatRequest, {"metadata": {"a": 5}}, "metadata.a", "Input should be a valid string"),
        (GenerationRequest, {"sampling": {"n": 0}}, "sampling.n", "Input should be greater than or equal to 1"),
    ],
)
def test_a_parameter_is_named_as_the_client_wrote_it(
    kind: type[BaseModel], changed: dict[str, Any], parameter: str, message: str
) -> None:
    """Without the names of a union's branches; and of these the one that was meant is heard."""
    body = (CHAT if kind is ChatRequest else COMPLETION) | changed
    if kind is GenerateRequest:
        body = {"prompt": "x"} | changed
    assert said(kind, body) == (f"{parameter}: {message}", "invalid_parameter", parameter)


@pytest.mark.parametrize(
    ("kind", "changed", "parameter"),
    [
        (ChatRequest, {"logit_bias": {"5": 1}}, "logit_bias"),
        (ChatRequest, {"tool_choice": {"type": "function", "function": {"nam": "f"}}}, "tool_choice.function.nam"),
        (GenerationRequest, {"colour": "red"}, "colour"),
        (GenerationRequest, {"sampling": {"{sentence}": 1}}, "sampling.{sentence}"),
    ],
)
def test_what_nobody_knows_is_unsupported_on_every_route(
    kind: type[BaseModel], changed: dict[str, Any], parameter: str
) -> None:
    """One code for it, and the parameter."""
    message, code, named = said(kind, (CHAT if kind is ChatRequest else COMPLETION) | changed)
    assert (code, named) == ("unsupported_parameter", parameter)
    assert parameter.rpartition(".")[2] in message


def test_null_is_the_same_as_leaving_a_parameter_out() -> None:
    """Whichever of OpenAI's it is: its own clients know all of these names."""
    chat = get_type_hints(chat_create_params.CompletionCreateParamsBase).keys() | {"stream", "priority"}
    plain = get_type_hints(completion_create_params.CompletionCreateParamsBase).keys() | {"stream", "priority"}
    asked = ChatRequest.model_validate(dict.fromkeys(chat) | CHAT)
    assert chat_job(asked) == chat_job(ChatRequest.model_validate(CHAT))
    assert chat_job(asked).priority is Priority.INTERACTIVE
    text = CompletionRequest.model_validate(dict.fromkeys(plain) | COMPLETION)
    assert completion_jobs(text) == completion_jobs(CompletionRequest.model_validate(COMPLETION))
    assert said(ChatRequest, CHAT | {"colour": None})[1] == "unsupported_parameter"
    told = {"role": "assistant", "content": "y", "annotations": [], "refusal": None, "audio": None, "tool_calls": []}
    assert chat_job(ChatRequest.model_validate(CHAT | {"messages": [*USER, told]})).messages


@pytest.mark.parametrize("kind", ["json_object", "text"])
def test_a_schema_beside_another_type_is_refused(kind: str) -> None:
    """It would bind nobody."""
    shape = {"type": kind, "json_schema": {"name": "n", "schema": {}}}
    with pytest.raises(BadParameter, match=f"not with type {kind}") as caught:
        chat_job(ChatRequest.model_validate(CHAT | {"response_format": shape}))
    assert caught.value.parameter == "response_format.json_schema"


@pytest.mark.parametrize("seed", [-(2**63), -5, 0, 2**63 - 1])
def test_a_seed_is_any_that_the_engine_takes(seed: int) -> None:
    """64 bits with a sign, also in the contract."""
    assert chat_job(ChatRequest.model_validate(CHAT | {"seed": seed})).sampling.seed == seed


def test_an_empty_prompt_among_several_and_too_many_streams_are_refused() -> None:
    """Before anything is queued; the first by its place."""
    several = COMPLETION | {"prompt": ["a", "b", ""]}
    with pytest.raises(BadParameter, match=r"prompt\.2: the prompt is empty") as caught:
        completion_jobs(CompletionRequest.model_validate(several))
    assert caught.value.parameter == "prompt.2"
    many = COMPLETION | {"prompt": ["a"] * 101}
    with pytest.raises(BadParameter, match="at most 100 prompts, and this has 101"):
        completion_jobs(CompletionRequest.model_validate(many | {"stream": True}))
    assert len(completion_jobs(CompletionRequest.model_validate(many))) == 101


@pytest.mark.parametrize(("count", "priority"), [(1, Priority.INTERACTIVE), (2, Priority.NORMAL)])
def test_several_prompts_wait_behind_what_one_person_waits_for(count: int, priority: Priority) -> None:
    """Unless the request says otherwise."""
    asked = COMPLETION | {"prompt": [[1, 2]] * count}
    assert {job.priority for job in completion_jobs(CompletionRequest.model_validate(asked))} == {priority}
    said = CompletionRequest.model_validate(asked | {"priority": "batch"})
    assert {job.priority for job in completion_jobs(said)} == {Priority.BATCH}
