"""The producer's part of a trace: a span for each job that is made, and what travels with the job.

An app that traces has OpenTelemetry imported and a provider set; where it is not imported, nobody traces.
"""

import json
import sys
from contextlib import suppress
from typing import Any, Final

from producer import keys
from producer.contract import GenerationRequest

INSTRUMENTATION: Final = "inference-fleet"
PROVIDER: Final = "_TRACER_PROVIDER"
"""None, until somebody sets one."""


def trace_context(job_id: str, request: GenerationRequest) -> str | None:
    """A span of kind PRODUCER for this job, below the current one, as W3C headers in JSON; None: nobody traces."""
    api: Any = sys.modules.get("opentelemetry.trace")
    # redis-py imports it wherever it is installed. Asking for the provider costs a seventh of making a job, so the
    # variable behind it is looked at first; tests/contracts holds OpenTelemetry to it.
    if api is None or getattr(api, PROVIDER, api) is None:
        return None
    provider = api.get_tracer_provider()
    if isinstance(provider, api.ProxyTracerProvider):
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    queue = keys.queue(request.model)
    attributes = {
        "messaging.system": "redis",
        "messaging.destination.name": queue,
        "messaging.operation.name": "create",
        "messaging.operation.type": "create",
        "messaging.message.id": job_id,
        "gen_ai.request.model": request.model,
    }
    tracer = provider.get_tracer(INSTRUMENTATION)
    span = tracer.start_span(f"create {queue}", kind=api.SpanKind.PRODUCER, attributes=attributes)
    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers, api.set_span_in_context(span))
    with suppress(Exception):  # an exporter of the app's own: a job is not lost for its trace
        span.end()
    return json.dumps(headers) if headers else None
