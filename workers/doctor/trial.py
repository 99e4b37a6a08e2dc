"""A short generation with the configured model, in a process of its own: what breaks there breaks nothing here."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from producer.doctor import Finding
from workers.doctor.plan import failing, fine
from workers.parent import parent_arguments

SUBJECT = "generation"


@dataclass(frozen=True, slots=True)
class Generated:
    """What the trial's process says on its last line of output."""

    tokens: int = 0
    load_seconds: float = 0.0
    generate_seconds: float = 0.0
    failure: str = ""


def generation_finding(arguments: Sequence[str], environ: Mapping[str, str], timeout_seconds: float) -> Finding:
    """Start the engine, generate, and end it; ``arguments`` and ``environ`` are those of a worker's process."""
    command = [sys.executable, "-m", "workers.trying", *parent_arguments(), *arguments]
    process = subprocess.Popen(  # noqa: S603 - our own command
        command, env=dict(environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        return failing(
            SUBJECT, f"nothing after {timeout_seconds:g} s: raise engine.start_timeout_seconds if the disk is slow"
        )
    finally:
        _end_group(process)
    return _judged(output, errors, process.returncode)


def _judged(output: str, errors: str, exit_code: int) -> Finding:
    lines = output.splitlines()
    try:
        generated = Generated(**json.loads(lines[-1])) if lines else Generated()
    except (ValueError, TypeError):
        generated = Generated()
    if generated.failure or not generated.tokens:
        last = next((line.strip() for line in reversed(errors.splitlines()) if line.strip()), "it said nothing")
        cause = generated.failure or f"exit code {exit_code}: {last}"
        return failing(SUBJECT, f"{cause} (docs/troubleshooting.md: the engine does not start)")
    return fine(
        SUBJECT,
        f"{generated.tokens} tokens in {generated.generate_seconds:.2f} s, loaded in {generated.load_seconds:.0f} s",
    )


def _end_group(process: "subprocess.Popen[str]") -> None:
    """It, and what is left of its engine."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()
