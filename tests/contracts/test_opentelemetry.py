"""The one internal of OpenTelemetry that we look at."""

import subprocess
import sys


def test_the_provider_is_none_until_one_is_set() -> None:
    """In a fresh process; afterwards it is the one that was set, and a job of ours has a trace."""
    code = (
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from producer.contract import GenerationRequest\n"
        "from producer.tracing.creating import PROVIDER, trace_context\n"
        "request = GenerationRequest(model='m', prompt='x')\n"
        "assert getattr(trace, PROVIDER) is None\n"
        "assert trace_context('j', request) is None\n"
        "provider = TracerProvider()\n"
        "trace.set_tracer_provider(provider)\n"
        "assert getattr(trace, PROVIDER) is provider\n"
        "assert 'traceparent' in trace_context('j', request)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
