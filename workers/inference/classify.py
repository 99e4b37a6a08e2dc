"""Step 4: what an exception means for the job, decided in one pure function."""

from dataclasses import dataclass

from producer.contract import FailureCode
from workers.engine.base import EngineDead, EngineOverloaded, GenerationFailed, RequestRejected


@dataclass(frozen=True, slots=True)
class Failed:
    """The job is answered with a failure."""

    code: FailureCode
    message: str
    retry_elsewhere: bool = False
    """The request is fine and the engine lives, it only had no room: worth another attempt."""


@dataclass(frozen=True, slots=True)
class GivenBack:
    """The job is not answered here: the engine died under it, the queue hands it to another worker."""

    reason: str


def classify(error: Exception) -> Failed | GivenBack:
    """What becomes of a job whose attempt raised ``error``."""
    match error:
        case RequestRejected():
            return Failed(error.code, str(error))
        case EngineOverloaded():
            return Failed(FailureCode.ENGINE_FAILED, str(error), retry_elsewhere=True)
        case GenerationFailed():
            return Failed(FailureCode.ENGINE_FAILED, str(error))
        case EngineDead():
            return GivenBack(str(error))
        case _:
            return Failed(FailureCode.INTERNAL, f"{type(error).__name__}: {error}")
