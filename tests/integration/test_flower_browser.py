"""Flower as its operator sees it: real jobs at a simulated worker, in a real browser."""

from collections.abc import Iterator
from functools import partial

import pytest

from producer import Priority, Producer
from tests.browsers import Browser, running_browser
from tests.flower_jobs import PROMPT, jobs_of_each_state
from tests.flowers import RunningFlower, log_in, running_flower
from tests.running import RunningFleet

LOGIN = "ann:hush"
ROWS = """
const names = [...document.querySelectorAll('#tasks-table thead th')].map(one => one.textContent.trim());
return [...document.querySelectorAll('#tasks-table tbody tr')].map(row => Object.fromEntries(
  [...row.querySelectorAll('td')].map((cell, index) => [names[index], cell.textContent.trim()])));
"""


@pytest.fixture(scope="module")
def flower(simulated_fleet: RunningFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFlower]:
    """Over the simulated fleet, behind a password."""
    with running_flower(simulated_fleet.redis_url, tmp_path_factory.mktemp("flower"), login=LOGIN) as started:
        yield started


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One that knows the password."""
    with running_browser(tmp_path_factory.mktemp("browser")) as started:
        log_in(started, LOGIN)
        yield started


@pytest.fixture
def producer(simulated_fleet: RunningFleet) -> Iterator[Producer]:
    """For that fleet."""
    with simulated_fleet.producer() as opened:
        yield opened


def rows(browser: Browser, address: str) -> list[dict[str, str]]:
    """The tasks page's table, as it is now."""
    browser.open(f"{address}/tasks")
    browser.eventually(lambda: browser.script(ROWS), "the table is filled")
    found = browser.script(ROWS)
    assert isinstance(found, list)
    return found


def shows(browser: Browser, address: str, wanted: dict[str, str]) -> bool:
    """Whether each of these jobs is in the table in its state."""
    seen = {job: row["State"] for row in rows(browser, address) for job in wanted if job in row.get("UUID", "")}
    return seen == wanted


def test_jobs_of_each_state_are_seen(
    simulated_fleet: RunningFleet, flower: RunningFlower, browser: Browser, producer: Producer
) -> None:
    """With worker and runtime where they have them; the page of each says no word of prompts and answers."""
    worker = next(iter(flower.workers()))
    with jobs_of_each_state(simulated_fleet, producer) as jobs:
        browser.eventually(partial(shows, browser, flower.address, jobs), "all states are shown")
        table = {
            state: row for row in rows(browser, flower.address) for job, state in jobs.items() if job in row["UUID"]
        }
        assert {row["Name"] for row in table.values()} == {"fleet.generate"}
        assert table["PENDING"]["Worker"] == table["PENDING"]["Runtime"] == ""
        # Cancelled before a worker had it, it is shown where it was cancelled.
        assert table["REVOKED"]["Worker"] in (worker, "producers@fleet")
        for state in ("STARTED", "SUCCESS", "FAILURE", "RETRY"):
            assert table[state]["Worker"] == worker, state
        assert table["SUCCESS"]["Runtime"].endswith("ms")
        for job, state in jobs.items():
            browser.open(f"{flower.address}/task/{job}")
            browser.eventually(lambda: "Status" in browser.text, "the job's page")
            assert state == "RETRY" or state in browser.text
            assert PROMPT not in str(browser.script("return document.documentElement.outerHTML"))
        answer = producer.result(next(job for job, state in jobs.items() if state == "SUCCESS"), timeout_seconds=60)
        browser.open(f"{flower.address}/task/{answer.id}")
        assert "tokens" in browser.text
        assert answer.text[:12] not in browser.text


def test_a_job_that_its_worker_holds_is_seen_as_received(
    flower: RunningFlower, browser: Browser, producer: Producer
) -> None:
    """A rate limit keeps it from starting for a while."""
    worker = next(iter(flower.workers()))

    def limit(rate: str) -> int:
        return flower.ask("/api/task/rate-limit/fleet.generate", {"workername": worker, "ratelimit": rate})[0]

    assert limit("6/m") == 200
    try:
        jobs = [producer.submit(model="sim", prompt="x", sampling={"max_tokens": 1}) for _ in range(2)]
        held = {jobs[1].job_id: "RECEIVED"}
        browser.eventually(partial(shows, browser, flower.address, held), "it is held")
    finally:
        assert limit("0") == 200
    assert all(ended.result for ended in producer.results(jobs, timeout_seconds=60))


def test_a_running_job_is_stopped_by_its_button(flower: RunningFlower, browser: Browser, producer: Producer) -> None:
    """Terminate, on the job's page."""
    job = producer.submit(model="sim", prompt="x", metadata={"simulate": "slow:600"}).job_id
    browser.eventually(lambda: flower.state(job) == "STARTED", "it runs")
    browser.open(f"{flower.address}/task/{job}")
    browser.press("Terminate")
    browser.eventually(lambda: flower.state(job) == "REVOKED", "it is stopped")
    browser.open(f"{flower.address}/task/{job}")
    assert "REVOKED" in browser.text


def test_queues_and_workers_are_seen(flower: RunningFlower, browser: Browser, producer: Producer) -> None:
    """A queue's length counts all its lanes, and jobs in order of tenants; a worker says what its engine holds."""
    lanes = list(Priority)

    def length() -> int:
        browser.open(f"{flower.address}/broker")
        cells = [one.text for one in browser.all("#queue-table tbody tr td")]
        return int(cells[cells.index("fleet.sim") + 1])

    slow = {"model": "sim", "prompt": "x", "metadata": {"simulate": "slow:1.5"}}
    submitted = producer.submit_many(
        [slow | {"priority": lanes[n % 4], "tenant": ("acme", None)[n % 2]} for n in range(400)]
    )
    jobs = [outcome.unwrap() for outcome in submitted]
    browser.eventually(lambda: length() > 100, "a queue on the broker page")
    assert all(ended.result for ended in producer.results(jobs, timeout_seconds=120))
    browser.eventually(lambda: length() == 0, "an empty queue on the broker page")
    browser.open(f"{flower.address}/worker/{next(iter(flower.workers()))}")
    browser.eventually(lambda: "SimulatedEngine" in browser.text, "the worker's pool")
    assert "fleet.sim" in str(browser.script("return document.querySelector('#tab-queues').textContent"))
