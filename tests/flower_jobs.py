"""Jobs of the states that last, as Flower has words for them, at a simulated worker."""

from collections.abc import Iterator
from contextlib import contextmanager

from producer import Producer
from tests.running import RunningFleet

PROMPT = "secret words"


@contextmanager
def jobs_of_each_state(fleet: RunningFleet, producer: Producer) -> Iterator[dict[str, str]]:
    """State by job; what would go on for ever is cancelled at the end."""

    def submit(*, model: str = fleet.served, fault: str | None = None) -> str:
        metadata = {"simulate": fault} if fault else {}
        return producer.submit(model=model, prompt=PROMPT, sampling={"max_tokens": 12}, metadata=metadata).job_id

    producer.declare_model("later")
    jobs = {"PENDING": submit(model="later"), "SUCCESS": submit(), "FAILURE": submit(fault="fails")}
    jobs |= {"STARTED": submit(fault="slow:600"), "REVOKED": submit(fault="slow:600")}
    # Its waits between two attempts grow to a minute.
    jobs["RETRY"] = submit(fault="overloaded")
    producer.cancel(jobs["REVOKED"])
    try:
        yield {job: state for state, job in jobs.items()}
    finally:
        for state in ("STARTED", "RETRY", "PENDING"):
            producer.cancel(jobs[state])
