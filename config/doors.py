"""Where a fleet's metrics and its exporter listen."""

from pydantic import Field

from config.group import Host, Port, SettingsGroup


class MetricsSettings(SettingsGroup):
    """Where Prometheus scrapes the workers."""

    host: Host = "127.0.0.1"
    """Address to listen on; this machine only, because metrics tell about prompts' sizes and models."""
    port: Port = 9600
    """Port of the first worker; each further one on the machine takes the next."""


class ExporterSettings(SettingsGroup):
    """What Prometheus scrapes for the fleet as a whole, and what keeps Flower true."""

    host: Host = "127.0.0.1"
    """Address to listen on; this machine only, because metrics tell about models and load."""
    port: Port = 9700
    """Port of `/metrics` and `/health`."""
    reconcile_seconds: float = Field(default=5.0, ge=0, le=3600)
    """Seconds between two looks for jobs that Flower believes to run on a worker that is gone; 0: Flower is told
    nothing, and no events are heard."""
