"""What travels with a traced job, and what a process that traces needs."""

import json
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider

from producer.contract import GenerationRequest, SystemFields
from producer.errors import InvalidRequest
from producer.submission import PreparedJob, prepare, renamed
from producer.tracing import creating, exporting


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> TracerProvider:
    """As an app would have set it, for this test."""
    made = TracerProvider()
    monkeypatch.setattr(f"opentelemetry.trace.{creating.PROVIDER}", made)
    return made


def message_of(job: PreparedJob) -> SystemFields:
    """The fleet's header in the message that the enqueue script makes of it."""
    options = json.loads(job.options or b"{}")
    values = {"id": job.job_id, "token": job.submission_token, "size": job.size, "body": job.body.decode()}
    whole = job.route.message.filled(values | {"expires": "null", "now": "1.0", "trace": options.get("trace", "")})
    return SystemFields.model_validate(json.loads(whole)["headers"]["fleet"])


def test_a_job_that_nobody_traces_is_as_it_was() -> None:
    """No option, no gap, an empty context."""
    job = prepare(GenerationRequest(model="m", prompt="x"))
    assert job.options == b""
    assert "trace" not in job.route.message.parts
    assert message_of(job).trace_context == {}


@pytest.mark.usefixtures("provider")
def test_each_traced_job_has_a_context_of_its_own_and_shares_its_route() -> None:
    """The route is what their messages have in common."""
    first, second = (prepare(GenerationRequest(model="m", prompt="x")) for _ in range(2))
    assert first.route is second.route
    contexts = [message_of(job).trace_context["traceparent"] for job in (first, second)]
    assert len(set(contexts)) == 2


@pytest.mark.usefixtures("provider")
def test_a_job_under_another_name_keeps_its_trace() -> None:
    """It is sent again, not made again."""
    job = prepare(GenerationRequest(model="m", prompt="x", tenant="t"))
    assert message_of(renamed(job, "other", None)).trace_context == message_of(job).trace_context


def test_a_process_that_is_to_trace_says_which_package_it_lacks() -> None:
    """A light install has none of them."""
    code = (
        "import sys; sys.modules['opentelemetry.exporter.otlp.proto.http.trace_exporter'] = None\n"
        "from producer.tracing.exporting import tracer_provider; tracer_provider('x')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'inference-fleet-producer[otel]'" in done.stderr


def test_a_service_has_the_name_that_the_environment_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise ours; a variable that makes no sense is refused by its group's name."""
    named = exporting.tracer_provider("fleet-worker")
    monkeypatch.setenv(exporting.SERVICE_VARIABLE, "mine")
    renamed_one = exporting.tracer_provider("fleet-worker")
    assert [each.resource.attributes["service.name"] for each in (named, renamed_one)] == ["fleet-worker", "mine"]
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    with pytest.raises(InvalidRequest, match="OTEL_"):
        exporting.tracer_provider("fleet-worker")
    for each in (named, renamed_one):
        each.shutdown()
