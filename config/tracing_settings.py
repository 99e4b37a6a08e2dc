"""Whether jobs are traced; everything else of it is said by OpenTelemetry's own variables."""

from config.group import SettingsGroup


class TracingSettings(SettingsGroup):
    """OpenTelemetry traces of gateway and workers."""

    enabled: bool = False
    """Send a trace of each request and job by OTLP over HTTP, to where `OTEL_EXPORTER_OTLP_ENDPOINT` says
    (`http://localhost:4318`); needs the packages of the extra `otel`."""
