"""The jobs of a run. They follow from its seed, so the submitter can be killed and the checker needs not be told."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobShape:
    """What the jobs of a run look like."""

    seed: int
    shortest_tokens: int = 20
    longest_tokens: int = 60
    prompt_bytes: int = 40
    deadline_seconds: float | None = None
    """From the submission, by the submitter's clock; None: no deadline."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job, before it is submitted."""

    key: str
    """Its idempotency key; it comes back with the result, as metadata."""
    prompt: str
    tokens: int
    """Exactly as many are to be generated."""


def seeded(*parts: object) -> random.Random:
    """A generator that these parts decide."""
    return random.Random(repr(parts))  # noqa: S311 - reproducible, and no secret


def job_of(shape: JobShape, number: int) -> Job:
    """The job with this number."""
    tokens = seeded(shape.seed, number).randint(shape.shortest_tokens, shape.longest_tokens)
    opening = f"job {number} of run {shape.seed} "
    return Job(key_of(shape, number), opening + "x" * max(0, shape.prompt_bytes - len(opening)), tokens)


def key_of(shape: JobShape, number: int) -> str:
    """The idempotency key of the job with this number."""
    return f"{shape.seed}-{number}"


def number_of(key: str) -> int:
    """The number of the job with this key."""
    return int(key.rpartition("-")[2])
