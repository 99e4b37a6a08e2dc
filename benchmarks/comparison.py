"""The fleet's outputs beside those of vLLM called directly."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer import GenerationRequest, GenerationResult


@dataclass(frozen=True)
class Direct:
    """What vLLM answered when it was called directly."""

    outputs: list[dict[str, Any]]
    """Text, token ids and finish reason of each request, in order."""
    seconds: float
    completion_tokens: int


def direct_outputs(
    model: str, options: Mapping[str, Any], requests: Sequence[GenerationRequest], environ: Mapping[str, str]
) -> Direct:
    """Run the reference in a process of its own.

    Raises:
        RuntimeError: it failed; the message has the end of what it printed.
    """
    lines = [
        json.dumps(request.model_dump(mode="json", exclude_none=True) | {"resolved": request.sampling.resolved()})
        for request in requests
    ]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "outputs.jsonl"
        done = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-m", "benchmarks.direct_vllm", model, json.dumps(dict(options)), str(output)],
            input="\n".join(lines),
            capture_output=True,
            text=True,
            env=dict(environ),
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"vLLM called directly failed: {done.stderr[-3000:]}")
        measured, *outputs = map(json.loads, output.read_text(encoding="utf-8").split("\n"))
    return Direct(outputs, **measured)


def differences(results: Sequence[GenerationResult], outputs: Sequence[Mapping[str, Any]]) -> list[int]:
    """Positions whose text, token ids or finish reason differ."""
    return [
        index
        for index, (result, output) in enumerate(zip(results, outputs, strict=True))
        if (result.text, token_ids(result), result.choices[0].finish_reason)
        != (output["text"], output["token_ids"], output["finish_reason"])
    ]


def token_ids(result: GenerationResult) -> list[int]:
    """Ids of the first choice's tokens; the job must have asked for ``logprobs``."""
    return [token.token_id for token in result.choices[0].logprobs or ()]
