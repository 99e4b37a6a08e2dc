"""``fleet dead`` and ``fleet cancel`` as a shell sees them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import redis

from producer import Priority, Producer, keys
from tests.burying import Undertaker

SECRET = "the prompt is a secret"  # noqa: S105 - not a password


@dataclass
class Graveyard:
    """A fleet that knows the models ``m`` and ``n``, and what is buried there."""

    url: str
    producer: Producer
    client: "redis.Redis"

    def bury(self, model: str = "m") -> str:
        """A poisoned job's letter."""
        self.producer.submit(model=model, prompt=SECRET, priority=Priority.BATCH)
        return Undertaker(self.client, model).poison()

    def quarantine(self) -> str:
        """A letter without a job."""
        return Undertaker(self.client).quarantine(b"not\nJSON")

    def fleet(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        environment = {**os.environ, "FLEET_REDIS_URL": self.url, "COLUMNS": "200"}
        command = [sys.executable, "-m", "producer.cli", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def graveyard(redis_url: str) -> Iterator[Graveyard]:
    """Empty as yet."""
    with Producer(redis_url) as producer, redis.Redis.from_url(redis_url) as client:
        producer.declare_model("m")
        producer.declare_model("n")
        yield Graveyard(redis_url, producer, client)


def test_a_cancel_prints_what_it_found(graveyard: Graveyard) -> None:
    """Now, before, too late, and an unknown job."""
    job_id = graveyard.producer.submit(model="m", prompt="x").job_id

    assert graveyard.fleet("cancel", job_id).stdout == "cancelled\n"
    assert graveyard.fleet("cancel", job_id).stdout == "already_cancelled\n"
    assert "failure      cancelled: the job was cancelled\n" in graveyard.fleet("status", job_id).stdout
    assert graveyard.fleet("cancel", graveyard.bury("n")).stdout == "ended\n"
    unknown = graveyard.fleet("cancel", "no-such-job")
    assert (unknown.returncode, unknown.stdout, unknown.stderr.count("\n")) == (1, "", 1)
    assert "nothing is known of job no-such-job" in unknown.stderr


def test_the_list_is_a_table_of_one_line_per_letter_the_latest_first(graveyard: Graveyard) -> None:
    """With id, model, code, when and why; never the prompt."""
    first, second, third = graveyard.bury(), graveyard.bury("n"), graveyard.quarantine()
    run = graveyard.fleet("dead", "list")

    head, *rows = run.stdout.splitlines()
    assert head.split() == ["ID", "MODEL", "CODE", "WHEN", "REASON"]
    assert [row.split()[:3] for row in rows] == [
        [third, "m", "invalid_request"],
        [second, "n", "poisoned"],
        [first, "m", "poisoned"],
    ]
    assert rows[-1].endswith("Z  it kills engines")
    assert SECRET not in run.stdout
    assert (run.returncode, run.stderr) == (0, "")


def test_the_list_goes_by_model_and_page_and_says_when_there_is_more(graveyard: Graveyard) -> None:
    """With the option that shows it."""
    ids = [graveyard.bury() for _ in range(3)]
    graveyard.bury("n")
    page = graveyard.fleet("dead", "list", "--model", "m", "--limit", "1", "--offset", "1")
    rest = graveyard.fleet("dead", "list", "--model", "m", "--limit", "2", "--offset", "1")

    assert [row.split()[0] for row in page.stdout.splitlines()[1:]] == [ids[1]]
    assert page.stderr == "there are more: --offset 2\n"
    assert [row.split()[0] for row in rest.stdout.splitlines()[1:]] == [ids[1], ids[0]]
    assert rest.stderr == ""


def test_show_prints_every_attempt_and_the_message_only_when_asked(graveyard: Graveyard) -> None:
    """The message holds the prompt."""
    letter_id = graveyard.bury()
    shown = graveyard.fleet("dead", "show", letter_id).stdout
    whole = graveyard.fleet("dead", "show", letter_id, "--message").stdout

    facts = dict(line.split(maxsplit=1) for line in shown.splitlines())
    assert facts.keys() == {
        *("letter", "job", "queue", "model", "priority", "code", "reason", "buried_at", "message", "attempt")
    }
    assert (facts["letter"], facts["job"], facts["priority"], facts["code"]) == (
        letter_id,
        letter_id,
        "batch",
        "poisoned",
    )
    assert facts["attempt"].startswith("delivery 1, 20")
    assert facts["attempt"].endswith(", w@h: the engine died")
    assert SECRET not in shown
    assert whole.startswith(shown)
    assert SECRET in whole


def test_letters_are_replayed_by_id(graveyard: Graveyard) -> None:
    """Each prints its job; one that is not there costs one line and the exit code, not the others."""
    first, second = graveyard.bury(), graveyard.bury()
    run = graveyard.fleet("dead", "replay", first, "no-such-letter", second)

    assert run.returncode == 1
    assert run.stdout == f"{first}\n{second}\n"
    assert run.stderr.startswith("fleet: no dead letter 'no-such-letter'")
    assert run.stderr.count("\n") == 1
    assert graveyard.client.llen(keys.lane("m", Priority.BATCH)) == 2


def test_all_letters_are_replayed_the_oldest_first_but_those_without_a_job(graveyard: Graveyard) -> None:
    """Which stay, and are named."""
    first, unreadable, second = graveyard.bury(), graveyard.quarantine(), graveyard.bury()
    run = graveyard.fleet("dead", "replay", "--all")

    assert (run.returncode, run.stdout) == (1, f"{first}\n{second}\n")
    assert f"dead letter '{unreadable}' names no job" in run.stderr
    assert graveyard.producer.dead_letter_ids() == [unreadable]
    undertaker = Undertaker(graveyard.client)
    assert [undertaker.claim_job(), undertaker.claim_job()] == [first, second]


def test_letters_are_purged_by_id_or_all(graveyard: Graveyard) -> None:
    """It says how many, and which there were not."""
    ids = [graveyard.bury() for _ in range(3)]
    some = graveyard.fleet("dead", "purge", ids[0], "no-such-letter")
    rest = graveyard.fleet("dead", "purge", "--all")

    assert (some.returncode, some.stdout) == (1, "1 purged\n")
    assert some.stderr.startswith("fleet: no dead letter 'no-such-letter'")
    assert (rest.returncode, rest.stdout, rest.stderr) == (0, "2 purged\n", "")
    assert graveyard.producer.dead_letter_ids() == []


@pytest.mark.parametrize("command", ["replay", "purge"])
@pytest.mark.parametrize("arguments", [(), ("some-id", "--all")])
def test_neither_ids_nor_all_or_both_is_a_usage_error(
    graveyard: Graveyard, command: str, arguments: tuple[str, ...]
) -> None:
    """Nothing is purged by a forgotten argument."""
    letter_id = graveyard.bury()
    run = graveyard.fleet("dead", command, *arguments)

    assert (run.returncode, run.stdout) == (2, "")
    assert "give either ids or --all" in run.stderr
    assert graveyard.producer.dead_letter_ids() == [letter_id]


def test_an_unknown_letter_is_one_line_and_exit_code_1(graveyard: Graveyard) -> None:
    """No traceback."""
    run = graveyard.fleet("dead", "show", "no-such-letter")

    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (1, "", 1)
    assert "no dead letter 'no-such-letter'" in run.stderr
