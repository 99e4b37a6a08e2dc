"""One trace from the HTTP request over the queue to the engine, in a real receiver of OTLP."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.gateways import running_gateway
from tests.log_lines import MARKER
from tests.otlp import Receiver, Seen, receiving
from tests.running import VLLM_OPTIONS, RunningFleet, simulated
from tests.waiting import eventually

SERVER, PRODUCER, CONSUMER = 2, 4, 5
CLIENT_TRACE, CLIENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-01"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Where every process that is started meanwhile sends its spans."""
    with receiving() as listening:
        for name, value in listening.environment.items():
            monkeypatch.setenv(name, value)
        yield listening


def chain_of(spans: list[Seen], last: Seen) -> list[str]:
    """The names from the first span that is known to this one."""
    by_id = {span.span_id: span for span in spans}
    names, at = [last.name], last
    while at.parent_id in by_id:
        at = by_id[at.parent_id]
        names.insert(0, at.name)
    return names


def ask(address: str, model: str, **fields: object) -> None:
    """A chat, in the client's trace."""
    asked = {"model": model, "messages": [{"role": "user", "content": MARKER}], "max_tokens": 4} | fields
    answer = httpx.post(f"{address}/v1/chat/completions", json=asked, headers={"traceparent": TRACEPARENT}, timeout=60)
    assert answer.status_code == 200, answer.text


def test_one_trace_from_the_request_to_the_engine(redis_url: str, tmp_path: Path, receiver: Receiver) -> None:
    """In the client's own trace: request, job, attempt and generation, each below the one before, with its figures."""
    with simulated(redis_url, tmp_path), running_gateway(redis_url, tmp_path) as address:
        ask(address, "sim")
        eventually(lambda: receiver.named("chat sim"), what="the engine's span is there")
    [generation] = receiver.named("chat sim")
    names = ["POST /v1/chat/completions", "create fleet.sim", "process fleet.sim", "chat sim"]
    assert chain_of(receiver.spans, generation) == names
    request, job, attempt = (receiver.named(name)[0] for name in names[:3])
    assert {span.trace_id for span in (request, job, attempt, generation)} == {CLIENT_TRACE}
    assert request.parent_id == CLIENT_SPAN
    assert [request.kind, job.kind, attempt.kind] == [SERVER, PRODUCER, CONSUMER]
    assert [span.service for span in (request, job, attempt)] == ["fleet-gateway", "fleet-gateway", "fleet-worker"]
    assert request.attributes["http.response.status_code"] == 200
    assert attempt.attributes["messaging.message.id"] == job.attributes["messaging.message.id"]
    assert attempt.attributes["fleet.queued_seconds"] >= 0
    assert generation.attributes["gen_ai.usage.output_tokens"] == 4
    assert generation.attributes["gen_ai.usage.input_tokens"] > 0
    assert generation.attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert generation.attributes["gen_ai.request.max_tokens"] == 4
    assert not receiver.named("GET /health")
    assert not any(MARKER.encode() in body for body in receiver.bodies)


def test_a_job_that_is_tried_again_has_two_attempts_in_one_trace(
    redis_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    """Both below the span of its making; the failed generation is one, without the error's text."""
    with simulated(redis_url, tmp_path), running_gateway(redis_url, tmp_path) as address:
        ask(address, "sim", metadata={"simulate": "overloaded_once"})
        eventually(lambda: len(receiver.named("process fleet.sim")) == 2, what="both attempts are there")
    first, second = receiver.named("process fleet.sim")
    assert first.parent_id == second.parent_id == receiver.named("create fleet.sim")[0].span_id
    assert [first.trace_id, second.trace_id] == [CLIENT_TRACE] * 2
    assert [first.attributes["fleet.status"], second.attributes["fleet.status"]] == ["put_off", "succeeded"]
    assert [first.attributes["fleet.attempt"], second.attributes["fleet.attempt"]] == [1, 2]
    refused, answered = receiver.named("chat sim")
    assert (refused.is_error, answered.is_error) == (True, False)
    assert refused.attributes["error.type"] == "EngineOverloaded"


def vllms_own(receiver: Receiver) -> list[Seen]:
    """Its own spans in the client's trace; warming up has one of its own."""
    return [span for span in receiver.named("llm_request") if span.trace_id == CLIENT_TRACE]


@pytest.mark.vllm
def test_vllm_goes_on_with_the_trace(redis_url: str, tmp_path: Path, tiny_model: Path, receiver: Receiver) -> None:
    """With its own option for traces, its span is below ours."""
    endpoint = {"otlp_traces_endpoint": f"{receiver.address}/v1/traces"}
    options = {f"engine.options.{name}": value for name, value in (VLLM_OPTIONS | endpoint).items()}
    protocol = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}
    fleet = RunningFleet(redis_url, tmp_path, str(tiny_model), options, environ=protocol)
    with fleet, running_gateway(redis_url, tmp_path) as address:
        ask(address, "tiny")
        eventually(lambda: vllms_own(receiver), what="vLLM's span is there")
    [by_vllm] = vllms_own(receiver)
    names = ["POST /v1/chat/completions", "create fleet.tiny", "process fleet.tiny", "chat tiny", "llm_request"]
    assert chain_of(receiver.spans, by_vllm) == names
    assert not any(MARKER.encode() in body for body in receiver.bodies)


def test_an_app_that_traces_sees_its_jobs(redis_url: str, tmp_path: Path, receiver: Receiver) -> None:
    """By the provider that the app has set, singly and in bulk; the worker's spans are in the app's traces."""
    app = (
        "import sys\n"
        "from opentelemetry import trace\n"
        "from producer import Producer\n"
        "from producer.tracing.exporting import tracer_provider\n"
        "provider = tracer_provider('my-app')\n"
        "trace.set_tracer_provider(provider)\n"
        "with trace.get_tracer('app').start_as_current_span('page'), Producer(sys.argv[1]) as producer:\n"
        "    requests = [{'model': 'sim', 'prompt': 'x', 'sampling': {'max_tokens': 1}}] * 3\n"
        "    jobs = [producer.submit(requests[0])]\n"
        "    jobs += [outcome.submission for outcome in producer.submit_many(requests)]\n"
        "    assert all(outcome.result for outcome in producer.results(jobs, 60))\n"
        "provider.shutdown()\n"
    )
    with simulated(redis_url, tmp_path):
        subprocess.run([sys.executable, "-c", app, redis_url], check=True, env=os.environ, timeout=120)
        eventually(lambda: len(receiver.named("process fleet.sim")) == 4, what="all attempts are there")
    [page] = receiver.named("page")
    for attempt in receiver.named("process fleet.sim"):
        assert chain_of(receiver.spans, attempt) == ["page", "create fleet.sim", "process fleet.sim"]
        assert attempt.trace_id == page.trace_id


def test_whatever_stands_in_the_header_the_job_is_done(redis_url: str, tmp_path: Path, receiver: Receiver) -> None:
    """What is no trace context begins a trace of its own."""
    asked = {"model": "sim", "prompt": "x", "sampling": {"max_tokens": 1}}
    with simulated(redis_url, tmp_path) as fleet, fleet.celery() as celery:
        for context in ({"traceparent": "nonsense"}, {"traceparent": 5}, [1]):
            header = {"schema_version": 1, "submission_token": "t", "trace_context": context}
            job = celery.send_task("fleet.generate", [asked], queue="fleet.sim", headers={"fleet": header})
            eventually(job.successful, what="it is done", seconds=60)
        eventually(lambda: len(receiver.named("process fleet.sim")) == 3, what="all have a span")
    assert {span.parent_id for span in receiver.named("process fleet.sim")} == {""}
    assert len({span.trace_id for span in receiver.named("process fleet.sim")}) == 3
