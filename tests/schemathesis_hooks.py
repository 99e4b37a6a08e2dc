"""What schemathesis is told in its own process: how a list of jobs becomes lines."""

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(_context: object, value: Any) -> bytes:  # noqa: ANN401 - whatever it makes up
    """A line for each of a list; anything else as it is."""
    jobs = value if isinstance(value, list) else [value]
    return "\n".join(job if isinstance(job, str) else json.dumps(job) for job in jobs).encode("utf-8", "replace")
