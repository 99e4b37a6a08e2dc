"""Thousands of requests that the gateway's own OpenAPI document allows, and as many that it does not: none is a 5xx."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.gateways import running_gateway
from tests.running import simulated

LEAST_CASES = 5_000
EXAMPLES_EACH = 120
SEED = 20261126
ROOT = Path(__file__).parents[2]


def narrowed(document: dict[str, Any], job_ids: list[str]) -> dict[str, Any]:
    """The document with names that exist, or next to nothing would get past the first look-up."""
    for schema in document["components"]["schemas"].values():
        if "model" in schema.get("properties", {}):
            schema["properties"]["model"] = {"enum": ["sim"]}
    names = {"job_id": [*job_ids, "none"], "name": ["sim", "other"]}
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] in names:
                    parameter["schema"] = {"enum": names[parameter["name"]]}
    body = document["paths"]["/v1/jobs/bulk"]["post"]["requestBody"]["content"]["application/x-ndjson"]
    body["schema"] = {"type": "array", "items": {"$ref": "#/components/schemas/GenerationRequest"}, "maxItems": 4}
    return document


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_request_that_a_client_can_make_is_a_server_error(redis_url: str, tmp_path: Path) -> None:
    """By schemathesis, from a fixed seed."""
    with simulated(redis_url, tmp_path, seconds_per_token=0.0001), running_gateway(redis_url, tmp_path) as address:
        jobs = [
            {"model": "sim", "prompt": "x", "sampling": {"max_tokens": 5}, "stream": is_streamed}
            for is_streamed in (True, False)
        ]
        job_ids = [httpx.post(f"{address}/v1/jobs", json=job, timeout=60).json()["id"] for job in jobs]
        document = narrowed(httpx.get(f"{address}/openapi.json", timeout=60).json(), job_ids)
        file = tmp_path / "openapi.json"
        file.write_bytes(orjson.dumps(document))
        command = [Path(sys.executable).with_name("schemathesis"), "run", file, "--url", address]
        command += [
            "--checks",
            "not_a_server_error",
            "--max-examples",
            str(EXAMPLES_EACH),
            "--seed",
            str(SEED),
            "--suppress-health-check",
            "all",
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
            timeout=1700,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-4000:]
    generated = re.search(r"([\d,]+) generated", done.stdout)
    assert generated is not None
    assert int(generated[1].replace(",", "")) >= LEAST_CASES
