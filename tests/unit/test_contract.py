"""The wire contract: limits, refusals with a hint, presets, immutability and the closed list of failures."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from producer.contract import (
    MAX_MESSAGES,
    MAX_METADATA_KEY_CHARACTERS,
    MAX_METADATA_PAIRS,
    MAX_METADATA_VALUE_CHARACTERS,
    MAX_PROMPT_BYTES,
    MAX_PROMPT_TOKEN_IDS,
    ChatMessage,
    Failure,
    FailureCode,
    GenerationRequest,
    Preset,
    Priority,
    ResponseFormat,
    SamplingOptions,
    SystemFields,
)
from producer.prompting import MAX_CHOICE_STRINGS, MAX_NAME_CHARACTERS
from producer.sampling import (
    DEFAULT_MAX_TOKENS,
    MAX_CHOICES,
    MAX_LOGPROBS,
    MAX_OUTPUT_TOKENS,
    MAX_STOP_STRING_CHARACTERS,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKEN_IDS,
    PRESETS,
)
from producer.strict import readable
from tests.finishing import generation_result


def refusal(kind: type[BaseModel], /, **fields: object) -> str:
    """The readable refusal of these fields."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(fields)
    return readable(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"prompt": "é" * (MAX_PROMPT_BYTES // 2)}, id="prompt_bytes"),
        pytest.param({"prompt": None, "prompt_token_ids": (0,) * MAX_PROMPT_TOKEN_IDS}, id="prompt_token_ids"),
        pytest.param(
            {"prompt": None, "messages": (ChatMessage(role="user", content="x"),) * MAX_MESSAGES}, id="messages"
        ),
        pytest.param(
            {"prompt": None, "messages": ({"role": "user", "content": "x" * 4096},) * 1024}, id="bytes_of_all_messages"
        ),
        pytest.param({"metadata": {f"{n}": "" for n in range(MAX_METADATA_PAIRS)}}, id="metadata_pairs"),
        pytest.param({"metadata": {"k" * MAX_METADATA_KEY_CHARACTERS: ""}}, id="metadata_key_characters"),
        pytest.param({"metadata": {"k": "v" * MAX_METADATA_VALUE_CHARACTERS}}, id="metadata_value_characters"),
        pytest.param({"model": "m" * MAX_NAME_CHARACTERS}, id="name_characters"),
    ],
)
def test_a_request_at_its_limit_is_taken(fields: dict[str, Any]) -> None:
    """Limits are inclusive, each in the unit that its name says."""
    request = GenerationRequest.model_validate({"model": "m", "prompt": "x"} | fields)

    assert request.priority is Priority.NORMAL


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param(
            {"prompt": "é" * (MAX_PROMPT_BYTES // 2) + "x"}, "4,194,305 bytes; at most 4,194,304", id="prompt"
        ),
        pytest.param(
            {"prompt": None, "messages": [{"role": "user", "content": "x" * (MAX_PROMPT_BYTES // 2 + 1)}] * 2},
            "4,194,306 bytes",
            id="messages_together",
        ),
        pytest.param(
            {"prompt": None, "prompt_token_ids": (0,) * (MAX_PROMPT_TOKEN_IDS + 1)}, "1048576", id="token_ids"
        ),
        pytest.param({"prompt": None, "prompt_token_ids": (-1,)}, "prompt_token_ids.0", id="negative_token_id"),
        pytest.param(
            {"prompt": None, "messages": [{"role": "user", "content": "x"}] * (MAX_MESSAGES + 1)}, "1024", id="messages"
        ),
        pytest.param({"metadata": {f"{n}": "" for n in range(MAX_METADATA_PAIRS + 1)}}, "16", id="metadata_pairs"),
        pytest.param({"metadata": {"k" * (MAX_METADATA_KEY_CHARACTERS + 1): ""}}, "64", id="metadata_key"),
        pytest.param({"metadata": {"k": "v" * (MAX_METADATA_VALUE_CHARACTERS + 1)}}, "512", id="metadata_value"),
        pytest.param({"model": "m" * (MAX_NAME_CHARACTERS + 1)}, "256", id="name"),
        pytest.param({"model": ""}, "at least 1", id="empty_name"),
        pytest.param({"prompt": ""}, "the prompt is empty", id="empty_prompt"),
        pytest.param({"prompt": None}, "exactly one of prompt", id="nothing_asked"),
        pytest.param({"prompt_token_ids": (1,)}, "given: prompt, prompt_token_ids", id="two_things_asked"),
        pytest.param({"deadline": datetime(2026, 1, 1)}, "timezone", id="naive_deadline"),  # noqa: DTZ001 - the case
        pytest.param({"priority": "urgent"}, "interactive", id="priority"),
        pytest.param({"schema_version": 2}, "schema_version", id="schema_version"),
    ],
)
def test_a_request_past_a_limit_is_refused_in_words(fields: dict[str, Any], words: str) -> None:
    """The refusal names the field, or the limit, in words that a caller can act on."""
    assert words in refusal(GenerationRequest, **({"model": "m", "prompt": "x"} | fields))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": MAX_OUTPUT_TOKENS + 1}, "max_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 1.1}, "min_p"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"stop": ("x",) * (MAX_STOP_STRINGS + 1)}, "stop"),
        ({"stop": ("x" * (MAX_STOP_STRING_CHARACTERS + 1),)}, "stop.0"),
        ({"stop_token_ids": (1,) * (MAX_STOP_TOKEN_IDS + 1)}, "stop_token_ids"),
        ({"seed": -(2**63) - 1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"n": MAX_CHOICES + 1}, "n"),
        ({"logprobs": MAX_LOGPROBS + 1}, "logprobs"),
        ({"preset": "wild"}, "preset"),
    ],
)
def test_a_sampling_option_out_of_range_is_refused_by_name(options: dict[str, Any], field: str) -> None:
    """Ranges are those of the engine, so that nothing fails only there."""
    assert refusal(SamplingOptions, **options).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"modle": "m"}, "did you mean 'model'?"),
        ({"temperature": 0.5}, "unknown field 'temperature': did you mean sampling.temperature?"),
        ({"max_tokens": 5}, "did you mean sampling.max_tokens?"),
        ({"preset": "chat"}, "did you mean sampling.preset?"),
        ({"zzz": 1}, "known are conversation_id, deadline"),
        ({"sampling": {"temprature": 1}}, "did you mean 'temperature'?"),
    ],
)
def test_an_unknown_field_is_refused_with_the_name_that_was_meant(fields: dict[str, Any], hint: str) -> None:
    """Nothing unknown is dropped in silence, and sampling options are not lifted out of the top level."""
    assert hint in refusal(GenerationRequest, **({"model": "m", "prompt": "x"} | fields))


def test_a_refusal_never_repeats_what_was_asked() -> None:
    """Refusals are logged and shown; prompts are not."""
    assert "secret" not in refusal(GenerationRequest, model="m", prompt="secret", prompt_token_ids=("secret",))


@pytest.mark.parametrize("preset", list(Preset))
def test_a_preset_is_a_starting_point_that_each_option_overrides(preset: Preset) -> None:
    """Every option of every preset yields to the job's own value, one by one."""
    assert SamplingOptions(preset=preset).resolved() == {"max_tokens": DEFAULT_MAX_TOKENS} | PRESETS[preset]
    for option in PRESETS[preset]:
        overridden = SamplingOptions.model_validate({"preset": preset, option: 1}).resolved()
        assert overridden == {"max_tokens": DEFAULT_MAX_TOKENS} | PRESETS[preset] | {option: 1}


def test_options_of_one_request_never_reach_another() -> None:
    """What a reader does to resolved options stays his own."""
    first = GenerationRequest(model="m", prompt="x", sampling=SamplingOptions(preset=Preset.CHAT))
    second = GenerationRequest(model="m", prompt="x", sampling=SamplingOptions(preset=Preset.CHAT))

    first.sampling.resolved()["temperature"] = 9

    assert second.sampling.resolved()["temperature"] == PRESETS[Preset.CHAT]["temperature"] == 0.7
    assert GenerationRequest(model="m", prompt="x").sampling.resolved() == {"max_tokens": DEFAULT_MAX_TOKENS}


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (GenerationRequest(model="m", prompt="x"), "prompt"),
        (SamplingOptions(), "temperature"),
        (generation_result("1"), "id"),
        (Failure(code=FailureCode.EXPIRED, message=""), "message"),
    ],
)
def test_everything_on_the_wire_is_immutable(value: BaseModel, field: str) -> None:
    """No stage of the pipeline can change a request or a result under another."""
    with pytest.raises(ValidationError, match="frozen"):
        setattr(value, field, "changed")


@pytest.mark.parametrize(
    "asked", [{"prompt": "x"}, {"messages": ({"role": "user", "content": "x"},), "sampling": {"n": 2}}]
)
def test_a_turn_of_a_conversation_has_messages_and_one_answer(asked: dict[str, Any]) -> None:
    """Nothing else could be gone on from."""
    assert "one answer (n = 1)" in refusal(GenerationRequest, model="m", conversation_id="c", **asked)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"type": "json_schema"}, "needs json_schema"),
        ({"type": "regex"}, "needs regex"),
        ({"type": "choice"}, "needs choices"),
        ({"type": "text", "regex": "a"}, "regex does not go with type 'text'"),
        ({"type": "choice", "choices": ()}, "choices"),
        ({"type": "choice", "choices": ("x",) * (MAX_CHOICE_STRINGS + 1)}, "choices"),
    ],
)
def test_a_response_format_needs_exactly_what_its_type_needs(fields: dict[str, Any], words: str) -> None:
    """Type and its companion field go together."""
    assert words in refusal(ResponseFormat, **fields)


def test_the_failure_codes_are_a_closed_list_with_status_and_retryability() -> None:
    """Callers may switch over them."""
    table = {code.value: (code.http_status, code.retryable) for code in FailureCode}

    assert table == {
        "invalid_request": (400, False),
        "model_not_found": (404, False),
        "context_length_exceeded": (400, False),
        "expired": (504, False),
        "cancelled": (499, False),
        "engine_failed": (502, True),
        "poisoned": (422, False),
        "queue_full": (429, True),
        "rate_limited": (429, True),
        "internal": (500, True),
    }


@pytest.mark.parametrize(
    "value",
    [
        GenerationRequest(
            model="m",
            messages=(ChatMessage(role="system", content="be brief"), ChatMessage(role="user", content="ünï")),
            sampling=SamplingOptions(preset=Preset.CODE, stop=("\n",), seed=7),
            response_format=ResponseFormat(type="json_schema", json_schema={"const": None}),
            priority=Priority.BATCH,
            deadline=datetime(2030, 1, 1, tzinfo=UTC),
            idempotency_key="k",
            tenant="t",
            metadata={"a": "b"},
        ),
        SystemFields(submission_token="t", enqueued_at=1.5),  # noqa: S106 - not a password
        generation_result("1"),
        Failure(code=FailureCode.POISONED, message="it kills engines"),
    ],
)
def test_everything_survives_json_unchanged(value: BaseModel) -> None:
    """What one side writes the other one reads, with and without the unset fields."""
    assert type(value).model_validate_json(value.model_dump_json()) == value
    assert type(value).model_validate_json(value.model_dump_json(exclude_none=True)) == value
