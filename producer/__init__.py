"""Inference Fleet, the producer's side: submit generation jobs to Redis and wait for their results.

Imports nothing from ``workers`` or ``config``; installs alone as ``inference-fleet-producer``.
"""

from producer.async_client import AsyncProducer
from producer.client import Producer
from producer.contract import (
    ChatMessage,
    Failure,
    FailureCode,
    GenerationRequest,
    GenerationResult,
    Preset,
    Priority,
    ResponseFormat,
    SamplingOptions,
)
from producer.errors import (
    FleetError,
    FleetUnreachable,
    InferenceFailed,
    InvalidRequest,
    ResultExpired,
    ResultNotReady,
    SubmitFailed,
    UnknownModel,
)
from producer.jobs import JobOutcome, JobState, JobStatus, ModelDeclaration, Submission

__all__ = [
    "AsyncProducer",
    "ChatMessage",
    "Failure",
    "FailureCode",
    "FleetError",
    "FleetUnreachable",
    "GenerationRequest",
    "GenerationResult",
    "InferenceFailed",
    "InvalidRequest",
    "JobOutcome",
    "JobState",
    "JobStatus",
    "ModelDeclaration",
    "Preset",
    "Priority",
    "Producer",
    "ResponseFormat",
    "ResultExpired",
    "ResultNotReady",
    "SamplingOptions",
    "Submission",
    "SubmitFailed",
    "UnknownModel",
]
