"""Messages as producers of every contract version wrote them, kept as files: workers understand them for ever."""

import json
from pathlib import Path

import pytest

from producer.answers import SCHEMA_VERSION
from producer.contract import GenerationRequest, GenerationResult, Priority
from producer.keys import PRIORITY_STEPS
from producer.message import new_job, task_message
from tests.deliveries import claimed
from workers.engine.base import RequestRejected
from workers.inference.decode import decode
from workers.transport.arrivals import parse

GOLDEN = Path(__file__).parents[1] / "golden"
MESSAGES = sorted(GOLDEN.glob("contract-*/messages/*.json"))
RESULTS = sorted(GOLDEN.glob("contract-*/results/*.json"))


def name(path: Path) -> str:
    """For the test's name."""
    return f"{path.parent.parent.name}/{path.stem}"


def request_in(raw: bytes) -> GenerationRequest:
    """What a worker reads."""
    read = parse(claimed(raw))
    assert not isinstance(read, str), read
    message, job_id = read
    assert job_id == message["headers"]["id"]
    return decode(json.loads(message["body"])[0])


@pytest.mark.parametrize("path", MESSAGES, ids=name)
def test_a_message_that_was_ever_written_is_understood(path: Path) -> None:
    """Byte for byte as it was; and everything that it asked for is still asked for."""
    raw = path.read_bytes()
    request = request_in(raw)
    asked = json.loads(parse(claimed(raw))[0]["body"])[0][-1]  # type: ignore[index]  # a message: request_in has read it
    understood = request.model_dump(mode="json", exclude_none=True)
    if "{{previous}}" not in asked.get("prompt", ""):
        for field, value in asked.items():
            assert understood[field] == value, field


def test_every_version_has_its_files() -> None:
    """A version that has none could be forgotten; CONTRIBUTING.md says how they are made."""
    versions = {path.parent.parent.name for path in MESSAGES} & {path.parent.parent.name for path in RESULTS}
    assert versions == {f"contract-{version}" for version in range(1, SCHEMA_VERSION + 1)}
    assert len(MESSAGES) >= 13


@pytest.mark.parametrize("priority", Priority)
def test_what_is_written_today_has_the_form_of_the_golden_ones(priority: Priority) -> None:
    """A header that is new, gone or of another type is noticed here before a running worker notices it."""

    def form(value: object) -> object:
        return {key: form(inner) for key, inner in value.items()} if isinstance(value, dict) else type(value).__name__

    golden = json.loads((GOLDEN / f"contract-{SCHEMA_VERSION}/messages/prompt.json").read_bytes())
    job = new_job(GenerationRequest(model="m", prompt="Why queues?", priority=priority))
    written = json.loads(task_message(job).at(1790000000.125))
    assert form(written) == form(golden)
    assert written["properties"]["priority"] == PRIORITY_STEPS[priority]


@pytest.mark.parametrize("path", RESULTS, ids=name)
def test_a_result_that_was_ever_stored_is_understood(path: Path) -> None:
    """A producer that was upgraded first reads what older workers answer."""
    stored = json.loads(path.read_bytes())["result"]
    result = GenerationResult.model_validate(stored)
    assert result.model_dump(mode="json", exclude_none=True) == stored


def test_a_version_of_the_future_is_refused_with_what_to_do() -> None:
    """Never misread: the version changes exactly when an old reader would."""
    with pytest.raises(RequestRejected, match="workers are upgraded before producers"):
        decode([{"schema_version": SCHEMA_VERSION + 1, "model": "m", "prompt": "p"}])
