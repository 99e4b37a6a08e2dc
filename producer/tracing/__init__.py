"""OpenTelemetry traces of jobs; nothing here costs anything where nobody traces."""
