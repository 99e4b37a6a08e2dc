"""What vLLM raises, as what an engine raises; for vLLM 0.26 (plain ValueError) and later (errors with a class)."""

from collections.abc import Iterator
from typing import Final

from producer.contract import FailureCode
from workers.engine.base import EngineDead, EngineError, EngineOverloaded, GenerationFailed, RequestRejected

GONE: Final = "vLLM's engine process is gone; its log has the cause"

LENGTH_PARAMETERS: Final = {"input_text": "{} characters", "input_tokens": "at least {} tokens"}
"""``VLLMValidationError.parameter`` of a prompt that is too long, and what its ``value`` says."""


def engine_error(error: Exception, *, max_model_len: int, errored: bool) -> EngineError:
    """What ``error`` of one request means to the worker; ``errored`` is whether the whole engine is."""
    from vllm.v1.engine.exceptions import EngineDeadError

    if isinstance(error, EngineError):
        return error
    if errored or isinstance(error, EngineDeadError):
        return EngineDead(GONE)
    for cause in _chain(error):
        if _is_overload(cause):
            return EngineOverloaded(str(cause))
        if _is_callers_fault(cause):
            return _rejection(cause, max_model_len)
    return GenerationFailed(_sentence(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    # vLLM wraps what it did not expect into an EngineGenerateError without a message.
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _is_overload(error: BaseException) -> bool:
    from vllm import exceptions

    return isinstance(error, getattr(exceptions, "GracefulHTTPError", ()))


def _is_callers_fault(error: BaseException) -> bool:
    from vllm import exceptions

    return isinstance(error, (ValueError, TypeError, getattr(exceptions, "VLLMClientError", ValueError)))


def _rejection(error: BaseException, max_model_len: int) -> RequestRejected:
    size = LENGTH_PARAMETERS.get(getattr(error, "parameter", None) or "")
    if size is None:
        return RequestRejected(FailureCode.INVALID_REQUEST, _sentence(error))
    return RequestRejected(
        FailureCode.CONTEXT_LENGTH_EXCEEDED,
        f"the prompt has {size.format(getattr(error, 'value', None))}; this model takes at most "
        f"{max_model_len - 1} tokens, so that one more fits into its context",
    )


def _sentence(error: BaseException) -> str:
    deepest = list(_chain(error))[-1]
    text = " ".join(str(deepest).split())
    return text or type(deepest).__name__
