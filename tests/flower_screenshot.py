"""A picture of Flower for the documents: ``python -m tests.flower_screenshot``; tests/ui_screenshots.py has others."""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from producer import Producer
from tests.browsers import running_browser
from tests.flower_jobs import jobs_of_each_state
from tests.flowers import log_in, running_flower
from tests.running import RunningFleet
from tests.ui_screenshots import MODEL, save
from tests.waiting import eventually, free_port
from workers.embedded import EmbeddedServer


def main() -> None:
    """Start a fleet with the simulated engine, give it jobs, and take the picture."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(EmbeddedServer(folder / "valkey", free_port()))
        fleet = RunningFleet(server.url, folder, MODEL, {"engine.kind": "simulated", "worker.gpus": "none"})
        stack.enter_context(fleet)
        flower = stack.enter_context(running_flower(server.url, folder, login="ann:hush"))
        browser = stack.enter_context(running_browser(folder, "--hide-scrollbars"))
        log_in(browser, "ann:hush")
        producer = stack.enter_context(Producer(server.url))
        jobs = stack.enter_context(jobs_of_each_state(fleet, producer))
        eventually(lambda: {flower.state(job) for job in jobs} == set(jobs.values()), what="Flower knows them all")
        browser.open(f"{flower.address}/tasks")
        browser.eventually(lambda: len(browser.all("#tasks-table tbody tr")) == len(jobs), "the table is filled")
        save(browser, "flower-tasks", 620)


if __name__ == "__main__":
    sys.exit(main())
