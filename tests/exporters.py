"""``fleet exporter`` as its user runs it, and what it says."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.running import FLEET, page_of
from tests.waiting import eventually, free_port


@dataclass(frozen=True)
class RunningExporter:
    """One that answers."""

    address: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def series(self, name: str, **labels: str) -> list[float]:
        """The samples of a series that carry these labels."""
        families = text_string_to_metric_families(page_of(f"{self.address}/metrics")[1])
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return [sample.value for sample in samples if labels.items() <= sample.labels.items()]

    def value(self, name: str, **labels: str) -> float:
        """Their sum; there is one at least."""
        found = self.series(name, **labels)
        assert found, f"no series {name}{labels}"
        return sum(found)


@contextmanager
def running_exporter(redis_url: str, folder: Path, **environ: str) -> Iterator[RunningExporter]:
    """It has stopped by itself afterwards."""
    port = free_port()
    log = folder / "exporter.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*FLEET, "exporter", "--port", str(port)],
            env=os.environ | {"FLEET_REDIS_URL": redis_url} | environ,
            stdout=output,
            stderr=output,
            cwd=folder,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        eventually(lambda: page_of(f"{address}/health")[0] == 200, what="the exporter answers")
        yield RunningExporter(address, process, log)
    finally:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
