"""``static-batch``: a worker that takes a batch from a Redis list and runs it to its end before it takes the next."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

import psutil
from redis import Redis

from workers.bench.drivers.base import environment
from workers.bench.drivers.child import Child
from workers.bench.drivers.server import QueueDriver
from workers.bench.load import Load
from workers.bench.records import JobRecord, PassRecord
from workers.bench.target import EngineTarget

JOBS: Final = "bench:jobs"
RESULTS: Final = "bench:results"
READY: Final = "bench:ready"
CHUNK_JOBS: Final = 500


class StaticBatchDriver(QueueDriver):
    """See the module."""

    def __init__(self, target: EngineTarget, folder: Path) -> None:
        super().__init__(target, folder)
        module = "workers.bench.drivers.static_batch_worker"
        command = [sys.executable, "-m", module, self.server.url, json.dumps(asdict(target))]
        self._worker = Child(command, folder / "worker.log", environment(target))
        self._client = Redis.from_url(self.server.url)

    def start(self) -> None:
        """See :meth:`Driver.start`."""
        self.start_server(with_listener=False)
        self._worker.start()
        self._worker.wait_until(lambda: bool(self._client.exists(READY)))

    def workers(self) -> list[psutil.Process]:
        """The one worker."""
        return [self._worker.process]

    def run(self, load: Load) -> PassRecord:
        """See :meth:`Driver.run`."""
        records = {job.index: JobRecord(job.index, submitted_at=0.0) for job in load.jobs}
        for at in range(0, len(load.jobs), CHUNK_JOBS):
            chunk = load.jobs[at : at + CHUNK_JOBS]
            now = time.time()
            for job in chunk:
                records[job.index].submitted_at = now
            self._client.rpush(JOBS, *(json.dumps(asdict(job)) for job in chunk))
        handed_in_at, left = time.time(), len(load.jobs)
        while left:
            popped = self._client.blpop([RESULTS], timeout=1)
            if popped is not None:
                left -= 1
                _take(records, popped[1])
        return PassRecord(list(records.values()), handed_in_at)

    def stop(self) -> None:
        """See :meth:`Driver.stop`."""
        self._worker.stop()
        self._client.close()
        self.stop_server()


def _take(records: dict[int, JobRecord], result: bytes | str) -> None:
    fields = json.loads(result)
    record = records[fields["index"]]
    record.ended_at = time.time()
    record.prompt_tokens, record.output_tokens = fields["prompt_tokens"], fields["output_tokens"]
    record.first_token_at, record.failure = fields["first_token_at"], fields["failure"]
