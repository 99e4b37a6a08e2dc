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
from producer.conversation import Conversation, ConversationTerms, Turn
from producer.dead_letters import Attempt, DeadLetter
from producer.drain_rate import DrainRate
from producer.errors import (
    FleetError,
    FleetUnreachable,
    InferenceFailed,
    InvalidRequest,
    NotCancellable,
    NotReplayable,
    OutboxFull,
    QueueFull,
    RedisFull,
    ResultExpired,
    ResultNotReady,
    SubmitFailed,
    TurnInProgress,
    UnknownConversation,
    UnknownDeadLetter,
    UnknownModel,
    UnknownWebhook,
)
from producer.jobs import (
    AttemptEnd,
    CancelOutcome,
    JobAttempt,
    JobOutcome,
    JobState,
    JobStatus,
    ModelDeclaration,
    Submission,
    SubmitOutcome,
)
from producer.presence import Phase, WorkerPresence
from producer.stream_reading import ChoiceDelta, StreamDelta, StreamEnded, StreamEvent, StreamRestarted
from producer.tenants import TenantTerms
from producer.webhooks.outbox import WebhookEvent, WebhookKind, WebhookState
from producer.webhooks.signing import WebhookSecret

__all__ = [
    "AsyncProducer",
    "Attempt",
    "AttemptEnd",
    "BatchSubmitFailed",
    "CancelOutcome",
    "ChatMessage",
    "ChoiceDelta",
    "Conversation",
    "ConversationTerms",
    "DeadLetter",
    "DrainRate",
    "Failure",
    "FailureCode",
    "FleetError",
    "FleetUnreachable",
    "GenerationRequest",
    "GenerationResult",
    "InferenceFailed",
    "InvalidRequest",
    "JobAttempt",
    "JobOutcome",
    "JobState",
    "JobStatus",
    "ModelDeclaration",
    "NotCancellable",
    "NotReplayable",
    "OutboxFull",
    "Phase",
    "Preset",
    "Priority",
    "Producer",
    "QueueFull",
    "RedisFull",
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
    "Turn",
    "TurnInProgress",
    "UnknownConversation",
    "UnknownDeadLetter",
    "UnknownModel",
    "UnknownWebhook",
    "WebhookEvent",
    "WebhookKind",
    "WebhookSecret",
    "WebhookState",
    "WorkerPresence",
]
