"""The worker's part of a trace: a span for each attempt at a job, and one below it for what the engine did."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from producer import keys
from producer.contract import GenerationRequest, GenerationResult
from producer.tracing.creating import INSTRUMENTATION
from producer.tracing.exporting import tracer_provider

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

NANOSECONDS: Final = 1_000_000_000
SENT_ALL_MILLISECONDS: Final = 2_000
GOOD_ENDS: Final = frozenset({"succeeded", "put_off"})
SAMPLING: Final = {
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "n": "gen_ai.request.choice.count",
}
"""Attributes of the sampling parameters, by the contract's names."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a trace says of one delivery."""

    job_id: str
    number: int
    received_at: float
    """Seconds since the epoch, as the next."""
    enqueued_at: float | None
    context: object
    """What the producer sent along, not validated."""


class JobTrace:
    """One attempt's spans. Its methods may be called from any thread."""

    def __init__(self, tracer: "Tracer", span: "Span") -> None:
        self._tracer = tracer
        self._span = span

    @contextmanager
    def generating(self, request: GenerationRequest) -> Iterator["Generation"]:
        """A span below, around what the engine does; errors are noted by their kind, never by their text."""
        from opentelemetry.trace import set_span_in_context

        operation = "chat" if request.messages is not None else "text_completion"
        given = request.sampling.resolved()
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": INSTRUMENTATION,
            "gen_ai.request.model": request.model,
            "gen_ai.request.stream": request.stream,
        } | {name: given[option] for option, name in SAMPLING.items() if given.get(option) is not None}
        parent = set_span_in_context(self._span)
        span = self._tracer.start_span(f"{operation} {request.model}", parent, attributes=attributes)
        try:
            yield Generation(span)
        except BaseException as error:
            _failed(span, type(error).__name__)
            raise
        finally:
            span.end()

    def ended(self, status: str, result: GenerationResult | None = None) -> None:
        """The attempt is over, and what became of it is in Redis."""
        self._span.set_attribute("fleet.status", status)
        if result is not None:
            self._span.set_attribute("gen_ai.usage.input_tokens", result.usage.prompt_tokens)
            self._span.set_attribute("gen_ai.usage.output_tokens", result.usage.completion_tokens)
        if status not in GOOD_ENDS:
            _failed(self._span, status)
        self._span.end()


@dataclass(frozen=True, slots=True)
class Generation:
    """The engine's span, while it runs."""

    span: "Span"

    def headers(self) -> dict[str, str]:
        """What an engine that traces by itself goes on from."""
        from opentelemetry.trace import set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, set_span_in_context(self.span))
        return carrier

    def measured(self, input_tokens: int, output_tokens: int, first_token_seconds: float | None) -> None:
        """What it took and made."""
        self.span.set_attribute("gen_ai.usage.input_tokens", input_tokens)
        self.span.set_attribute("gen_ai.usage.output_tokens", output_tokens)
        if first_token_seconds is not None:
            self.span.set_attribute("gen_ai.response.time_to_first_chunk", first_token_seconds)


@dataclass
class Tracing:
    """Makes the spans of one worker process."""

    worker: str
    model: str
    _provider: "TracerProvider" = field(default_factory=lambda: tracer_provider("fleet-worker"))

    def consumed(self, attempt: Attempt) -> JobTrace:
        """A span of kind CONSUMER, below the producer's; from the moment when the worker had the job."""
        from opentelemetry.trace import SpanKind

        queue = keys.queue(self.model)
        attributes: dict[str, Any] = {
            "messaging.system": "redis",
            "messaging.destination.name": queue,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.message.id": attempt.job_id,
            "gen_ai.request.model": self.model,
            "fleet.worker": self.worker,
            "fleet.attempt": attempt.number,
        }
        tracer = self._provider.get_tracer(INSTRUMENTATION)
        span = tracer.start_span(
            f"process {queue}",
            _parent(attempt.context),
            SpanKind.CONSUMER,
            attributes,
            start_time=int(attempt.received_at * NANOSECONDS),
        )
        if attempt.enqueued_at is not None:
            # By the server's clock: of two clocks the later may be the earlier, so no span for it.
            span.add_event("enqueued", timestamp=int(attempt.enqueued_at * NANOSECONDS))
            span.set_attribute("fleet.queued_seconds", max(0.0, attempt.received_at - attempt.enqueued_at))
        return JobTrace(tracer, span)

    def close(self) -> None:
        """Send what waits, for a moment at most."""
        self._provider.force_flush(SENT_ALL_MILLISECONDS)


def _parent(context: object) -> Any:  # noqa: ANN401 - OpenTelemetry's context
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = context if isinstance(context, Mapping) else {}
    texts = {str(name): value for name, value in carrier.items() if isinstance(value, str)}
    return TraceContextTextMapPropagator().extract(texts, Context())


def _failed(span: "Span", why: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", why)
    span.set_status(Status(StatusCode.ERROR))
