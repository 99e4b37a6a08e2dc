"""What a job went through, over HTTP and on the operator's page: every attempt, and how it ended."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.gateways import running_gateway
from tests.running import RunningFleet, simulated
from tests.waiting import eventually

PROMPT = "the moon is a cheese"
JOB: dict[str, Any] = {
    "model": "sim",
    "prompt": PROMPT,
    "tenant": "acme",
    "sampling": {"max_tokens": 400, "ignore_eos": True},
}


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[RunningFleet]:
    """Takes 4 s for a job; a worker that is stopped waits for none."""
    fleet = simulated(redis_url, tmp_path, seconds_per_token=0.01)
    fleet.options = dict(fleet.options) | {"worker.lease_seconds": 1.0, "worker.drain_timeout_seconds": 0.2}
    with fleet:
        yield fleet


def rows(page: str) -> list[list[str]]:
    """The table of attempts, without what its cells are marked up with."""
    [table] = re.findall(r'<table id="attempts">.*?</table>', page, re.DOTALL)
    body = table.partition("<tbody>")[2]
    return [
        [re.sub("<[^>]*>", "", cell).strip() for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    ]


def test_every_attempt_is_told_and_shown(fleet: RunningFleet, tmp_path: Path) -> None:
    """A worker that is stopped hands the job back, the next is killed, the third answers; a plain job has one."""
    with (
        running_gateway(fleet.redis_url, tmp_path) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        place = client.post("/v1/jobs", json=JOB).headers["location"]

        def ends() -> list[str]:
            return [one["end"] for one in client.get(place).json()["attempts"]]

        def end_worker(how: signal.Signals) -> None:
            [worker] = fleet.worker_processes()
            worker.send_signal(how)
            psutil.wait_procs([worker], timeout=30)

        eventually(lambda: ends() == ["running"], what="it runs")
        assert 'id="attempts"' not in client.get("/ui/job", params={"id": place.rpartition("/")[2]}).text
        end_worker(signal.SIGTERM)
        eventually(lambda: ends() == ["handed_back", "running"], what="it runs again")
        end_worker(signal.SIGKILL)
        assert client.get(f"{place}/result", params={"wait": 60}).status_code == 200
        eventually(lambda: ends() == ["handed_back", "lost", "succeeded"], what="all is written")

        job = client.get(place).json()
        attempts = job["attempts"]
        assert [one["attempt"] for one in attempts] == [1, 1, 2]
        assert {one["worker"] for one in attempts} == {job["worker"]}
        times = [moment for one in attempts for moment in (one["begun_at"], one["ended_at"])]
        assert times == sorted(times)
        assert job["enqueued_at"] < times[0]
        assert times[-1] == job["ended_at"]
        assert attempts[0].keys() == {"attempt", "worker", "begun_at", "ended_at", "end"}
        assert PROMPT not in str(job)
        assert "attempts" not in client.get("/v1/jobs").json()["data"][0]

        shown = rows(client.get("/ui/job", params={"id": job["id"]}).text)
        assert [row[0] for row in shown] == ["1", "1", "2"]
        assert [row[-1].partition(" (")[0] for row in shown] == [
            "It was handed back: its worker was stopped.",
            "It was lost with its worker.",
            "It answered.",
        ]
        assert "the lease expired: its worker was killed, hung or cut off" in shown[1][-1]
        assert all(row[4] == job["worker"] for row in shown)


def test_a_job_that_is_given_up_tells_of_the_attempt_that_was_lost(redis_url: str, tmp_path: Path) -> None:
    """It was answered without being run again, so that is its last one."""
    fleet = simulated(redis_url, tmp_path, seconds_per_token=0.01)
    fleet.options = dict(fleet.options) | {"worker.lease_seconds": 1.0, "worker.max_deliveries": 1}
    with (
        fleet,
        running_gateway(redis_url, tmp_path) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        place = client.post("/v1/jobs", json=JOB).headers["location"]
        eventually(lambda: client.get(place).json()["attempts"], what="it runs")
        [worker] = fleet.worker_processes()
        worker.send_signal(signal.SIGKILL)
        eventually(lambda: client.get(place).json()["state"] == "failed", what="it is given up")
        eventually(lambda: client.get(place).json()["attempts"][0]["end"] == "lost", what="all is written")
        job = client.get(place).json()
        assert job["failure"]["code"] == "poisoned"
        assert [one["end"] for one in job["attempts"]] == ["lost"]
        [shown] = rows(client.get("/ui/job", params={"id": job["id"]}).text)
        assert shown[-1].startswith("It was lost with its worker. (the lease expired")
