"""How an ended job is called in its record, in metrics, in lines and in traces."""

from producer.contract import GenerationResult
from producer.jobs import JobState
from workers.inference.answer import Later
from workers.inference.classify import Failed
from workers.pool.finisher import Finished


def final_state(finished: Finished) -> JobState:
    """In the job's record."""
    return JobState.SUCCEEDED if isinstance(finished, GenerationResult) else JobState.FAILED


def status_of(finished: Finished) -> str:
    """Everywhere else."""
    match finished:
        case GenerationResult():
            return "succeeded"
        case Failed():
            return finished.code.value
        case Later():
            return "put_off"
        case _:
            return "time_limit_exceeded"
