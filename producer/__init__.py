"""Inference Fleet, the producer's side: submit generation jobs to Redis and wait for their results.

Imports nothing from ``workers`` or ``config``; installs alone as ``inference-fleet-producer``.
"""

from producer.async_client import AsyncProducer
from producer.batch import BatchSubmitFailed
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
from producer.dead_letters import Attempt, DeadLetter
from producer.errors import (
    FleetError,
    FleetUnreachable,
    InferenceFailed,
    InvalidRequest,
    NotCancellable,
    NotReplayable,
    QueueFull,
    ResultExpired,
    ResultNotReady,
    SubmitFailed,
    UnknownDeadLetter,
    UnknownModel,
)
from producer.jobs import CancelOutcome, JobOutcome, JobState, JobStatus, ModelDeclaration, Submission, SubmitOutcome
from producer.stream_reading import ChoiceDelta, StreamDelta, StreamEnded, StreamEvent, StreamRestarted
from producer.tenants import TenantTerms

__all__ = [
    "AsyncProducer",
    "Attempt",
    "BatchSubmitFailed",
    "CancelOutcome",
    "ChatMessage",
    "ChoiceDelta",
    "DeadLetter",
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
    "NotCancellable",
    "NotReplayable",
    "Preset",
    "Priority",
    "Producer",
    "QueueFull",
    "ResponseFormat",
    "ResultExpired",
    "ResultNotReady",
    "SamplingOptions",
    "StreamDelta",
    "StreamEnded",
    "StreamEvent",
    "StreamRestarted",
    "Submission",
    "SubmitFailed",
    "SubmitOutcome",
    "TenantTerms",
    "UnknownDeadLetter",
    "UnknownModel",
]
