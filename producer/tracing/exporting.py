"""Where a process of the fleet sends its spans: by OTLP over HTTP, as OpenTelemetry's own variables say."""

import os
from typing import TYPE_CHECKING, Final

from producer.errors import InvalidRequest

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SERVICE_VARIABLE: Final = "OTEL_SERVICE_NAME"
ATTRIBUTES_VARIABLE: Final = "OTEL_RESOURCE_ATTRIBUTES"


def tracer_provider(service: str) -> "TracerProvider":
    """A provider that exports in a thread of its own; ``service`` is its name unless the environment names one.

    Raises:
        InvalidRequest: a package is missing, or a variable is wrong.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InvalidRequest(
            f"tracing.enabled: a package is missing ({error.name}): pip install 'inference-fleet-producer[otel]'"
        ) from error
    is_named = SERVICE_VARIABLE in os.environ or f"{SERVICE_NAME}=" in os.environ.get(ATTRIBUTES_VARIABLE, "")
    try:
        provider = TracerProvider(resource=Resource.create({} if is_named else {SERVICE_NAME: service}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise InvalidRequest(f"tracing.enabled: a variable OTEL_… is refused: {error}") from error
    return provider
