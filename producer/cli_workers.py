"""``fleet workers``: who is there, and what they do."""

import typer

from producer.cli_options import DEFAULT_REDIS_URL, RedisUrl
from producer.cli_producer import open_producer
from producer.cli_table import table
from producer.presence import WorkerPresence

COLUMNS = ("WORKER", "MODEL", "PHASE", "GPUS", "ENGINE", "RUNNING", "SLOTS", "JOBS/S", "TOKENS/S")


def workers(redis_url: RedisUrl = DEFAULT_REDIS_URL) -> None:
    """Print the workers that were heard of in the last seconds; rates are over their last minute."""
    with open_producer(redis_url) as producer:
        found = producer.workers()
    for line in table(COLUMNS, [_row(worker) for worker in found], texts=5):
        typer.echo(line)


def _row(worker: WorkerPresence) -> tuple[str, ...]:
    return (
        worker.worker,
        worker.model,
        worker.phase.value if worker.is_ready or worker.phase.value != "ready" else "no answer",
        ",".join(worker.gpus) or "none",
        f"{worker.engine} {worker.engine_version}".strip(),
        str(worker.running_jobs),
        str(worker.slots),
        f"{worker.jobs_per_second:.1f}",
        f"{worker.generation_tokens_per_second:.0f}",
    )
