"""The ``fleet`` command as a shell sees it: standard output, one line on standard error, exit codes."""

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import redis
import typer
from typer.testing import CliRunner

from producer import InferenceFailed, Priority, Producer, keys
from producer.cli import COMMAND_GROUP, build_app
from producer.errors import InvalidRequest
from tests.finishing import Answerer, Results
from tests.waiting import free_port

# Celery's backend calls a command of redis-py that redis-py has deprecated.


def fleet(redis_url: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command; the address comes from the environment."""
    environment = {**os.environ, "FLEET_REDIS_URL": redis_url, "COLUMNS": "200"}
    command = [sys.executable, "-m", "producer.cli", *arguments]
    return subprocess.run(
        command, input=stdin, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def failed(run: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that failed."""
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1
    return run.stderr


def test_models_are_declared_listed_and_forgotten(redis_url: str) -> None:
    """And forgetting what is not known is an error."""
    assert fleet(redis_url, "models", "declare", "m").returncode == 0
    assert fleet(redis_url, "models", "list").stdout == "m\toperator\n"
    assert fleet(redis_url, "models", "forget", "m").returncode == 0
    assert fleet(redis_url, "models", "list").stdout == ""
    assert "no model 'm' is known" in failed(fleet(redis_url, "models", "forget", "m"))


def test_a_job_is_submitted_watched_and_fetched(redis_url: str, results: Results) -> None:
    """Its id on standard output, its options in the request, its prompt from standard input."""
    fleet(redis_url, "models", "declare", "m")
    options = ("--preset", "code", "--max-tokens", "9", "--temperature", "0.1", "--priority", "batch")
    submitted = fleet(redis_url, "submit", "--model", "m", *options, stdin="from a pipe\n")
    job_id = submitted.stdout.strip()

    with redis.Redis.from_url(redis_url) as client:
        message = str(client.lindex(keys.lane("m", Priority.BATCH), 0))
    assert "from a pipe" in message
    assert '"preset":"code","max_tokens":9,"temperature":0.1' in message.replace("\\", "")
    assert "state        queued\n" in fleet(redis_url, "status", job_id).stdout
    assert "still queued or running" in failed(fleet(redis_url, "result", job_id))

    results.succeed(job_id, text="the answer")
    assert fleet(redis_url, "result", job_id, "--wait", "5").stdout == "the answer\n"
    assert "state        succeeded\n" in fleet(redis_url, "status", job_id).stdout


def test_submit_can_wait_for_the_answer(redis_url: str) -> None:
    """Then it prints the text instead of the id."""
    fleet(redis_url, "models", "declare", "m")
    with Answerer(redis_url):
        assert fleet(redis_url, "submit", "--model", "m", "--prompt", "echo", "--wait").stdout == "echo\n"


@pytest.mark.parametrize("is_piped", [False, True])
def test_a_file_is_submitted_line_by_line_with_a_line_of_json_for_each(
    redis_url: str, tmp_path: Path, *, is_piped: bool
) -> None:
    """What a line leaves out comes from the options; a bad line costs only itself, and the exit code."""
    fleet(redis_url, "models", "declare", "m")
    lines = [
        '{"prompt": "first"}',
        "",
        "not json",
        '{"prompt": "second", "priority": "interactive", "sampling": {"max_tokens": 7}}',
        '{"model": "typo", "prompt": "x"}',
        "[1]",
        '{"prompt": "first", "idempotency_key": "k", "tempratur": 1}',
    ]
    text = "\n".join(lines)
    (tmp_path / "jobs.jsonl").write_text(text)
    source = ("--file", "-" if is_piped else str(tmp_path / "jobs.jsonl"))
    options = ("--model", "m", "--priority", "batch", "--temperature", "0.5")
    run = fleet(redis_url, "submit", *source, *options, stdin=text if is_piped else "")

    printed = [json.loads(line) for line in run.stdout.splitlines()]
    assert [each["line"] for each in printed] == [1, 3, 4, 5, 6, 7]
    codes = [each["error"]["code"] if "error" in each else None for each in printed]
    assert codes == [None, "invalid_request", None, "model_not_found", "invalid_request", "invalid_request"]
    assert "not JSON" in printed[1]["error"]["message"]
    assert (run.returncode, run.stderr) == (1, "fleet: 4 of 6 requests were refused\n")
    with redis.Redis.from_url(redis_url) as client:
        [batch], [interactive] = (
            client.lrange(keys.lane("m", lane), 0, -1) for lane in (Priority.BATCH, Priority.INTERACTIVE)
        )
    assert printed[0]["job_id"].encode() in batch
    assert printed[2]["job_id"].encode() in interactive
    assert '"sampling":{"max_tokens":7,"temperature":0.5}' in interactive.decode().replace("\\", "")


def test_a_file_that_is_all_good_exits_with_0_and_one_that_is_not_there_is_an_error(
    redis_url: str, tmp_path: Path
) -> None:
    """An empty one is good too."""
    fleet(redis_url, "models", "declare", "m")
    file = tmp_path / "jobs.jsonl"
    file.write_text("")
    assert (fleet(redis_url, "submit", "--file", str(file)).returncode, file.unlink()) == (0, None)
    assert "--file" in failed(fleet(redis_url, "submit", "--file", str(file)))

    file.write_text('{"model": "m", "prompt": "x"}\n' * 500)
    run = fleet(redis_url, "submit", "--file", str(file))
    assert (run.returncode, len(run.stdout.splitlines())) == (0, 500)


def test_a_file_for_a_redis_that_is_not_there_names_the_lines_that_are_in_doubt(tmp_path: Path) -> None:
    """On the one line of every error."""
    file = tmp_path / "jobs.jsonl"
    file.write_text('{"model": "m", "prompt": "x"}\n' * 3)

    error = failed(fleet(f"redis://127.0.0.1:{free_port()}/0", "submit", "--file", str(file)))

    assert "Lines 1 to 3 are queued or not" in error


@pytest.mark.parametrize("more", [("--prompt", "x"), ("--wait",)])
def test_a_file_goes_with_neither_a_prompt_nor_waiting(redis_url: str, more: tuple[str, ...]) -> None:
    """A usage error."""
    assert fleet(redis_url, "submit", "--file", "-", *more).returncode == 2


def test_queues_are_listed_with_their_limits(redis_url: str) -> None:
    """Set and lifted by command, obeyed by the next submit."""
    fleet(redis_url, "models", "declare", "m")
    assert fleet(redis_url, "queues", "limit", "m", "--max-waiting-jobs", "1").returncode == 0
    assert fleet(redis_url, "submit", "--model", "m", "--prompt", "x").returncode == 0
    assert "at most 1 may" in failed(fleet(redis_url, "submit", "--model", "m", "--prompt", "x"))

    header, row = fleet(redis_url, "queues").stdout.splitlines()
    assert header.split() == ["MODEL", "WAITING", "LIMIT", "LEASED", "DELAYED", "SUSPECT", "DEAD"]
    assert row.split() == ["m", "1", "1", "0", "0", "0", "0"]

    assert fleet(redis_url, "queues", "limit", "m", "--max-waiting-jobs", "none").returncode == 0
    assert fleet(redis_url, "queues").stdout.splitlines()[1].split()[2] == "none"
    assert "a whole number, or 'none'" in failed(fleet(redis_url, "queues", "limit", "m", "--max-waiting-jobs", "x"))


def test_a_failed_job_is_told_with_its_code(redis_url: str, results: Results) -> None:
    """By result and by status."""
    with Producer(redis_url) as producer:
        producer.declare_model("m")
        job_id = producer.submit(model="m", prompt="x").job_id
    results.fail(job_id, InferenceFailed("poisoned", "it kills engines"))

    assert failed(fleet(redis_url, "result", job_id)) == "fleet: poisoned: it kills engines\n"
    assert "failure      poisoned: it kills engines\n" in fleet(redis_url, "status", job_id).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("submit", "--model", "typo", "--prompt", "x"), "model 'typo' is not known"),
        (("submit", "--model", "m", "--prompt", ""), "the prompt is empty"),
        (("submit", "--model", "m", "--prompt", "x", "--max-tokens", "0"), "sampling.max_tokens"),
        (("result", "no-such-job"), "nothing is known of job no-such-job"),
        (("status", "no-such-job"), "nothing is known of job no-such-job"),
        (("models", "list", "--redis-url", "http://x"), "--redis-url: Redis URL must specify"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(redis_url: str, arguments: tuple[str, ...], words: str) -> None:
    """No traceback."""
    assert words in failed(fleet(redis_url, *arguments))


def test_a_redis_that_is_not_there_is_one_line_too() -> None:
    """With its address."""
    port = free_port()
    assert f"127.0.0.1:{port}" in failed(fleet(f"redis://127.0.0.1:{port}/0", "models", "list"))


def test_a_missing_option_is_named_with_the_shells_usual_exit_code(redis_url: str) -> None:
    """As every Typer command does."""
    run = fleet(redis_url, "submit", "--prompt", "x")

    assert run.returncode == 2
    assert "--model" in run.stderr


def test_a_package_whose_commands_do_not_import_costs_one_line_and_not_the_rest() -> None:
    """The line names the package; commands of other packages are added."""
    broken = EntryPoint("broken", "no_such_package.cli:register", COMMAND_GROUP)
    added = EntryPoint("added", "commands_of_a_test:register", COMMAND_GROUP)
    sys.modules["commands_of_a_test"] = sys.modules[__name__]
    try:
        app = build_app([broken, added])
        again = CliRunner().invoke(_calls(broken, added), [])
    finally:
        del sys.modules["commands_of_a_test"]
    run = CliRunner().invoke(app, ["added"])

    assert run.stdout == "added by a package\n"
    assert again.stderr == "fleet: the commands of no_such_package are missing: No module named 'no_such_package'\n"


def test_only_the_command_that_is_asked_for_is_imported() -> None:
    """A producer's own commands need nobody else's; where none is known by that name, all might have it."""
    ours = [EntryPoint(name, "commands_of_a_test:register", COMMAND_GROUP) for name in ("added", "status")]
    others = EntryPoint("other", "no_such_package.cli:register", COMMAND_GROUP)
    sys.modules["commands_of_a_test"] = sys.modules[__name__]
    try:
        said = {
            asked: CliRunner().invoke(_calls(*ours, others, asked_for=asked), []).stderr
            for asked in ("added", "status", "submit", "other", "--help", "unknown", None)
        }
    finally:
        del sys.modules["commands_of_a_test"]

    assert {asked for asked, told in said.items() if "no_such_package" in told} == {"other", "--help", "unknown", None}


def register(app: typer.Typer) -> None:
    """What a package's entry point names."""

    @app.command("added")
    def added() -> None:
        typer.echo("added by a package")


def _calls(*commands: EntryPoint, asked_for: str | None = None) -> typer.Typer:
    """A command line that only builds the real one, so that a runner sees what it prints."""
    builder = typer.Typer()

    @builder.command()
    def build() -> None:
        build_app(commands, asked_for)

    return builder


def test_the_address_may_lie_in_a_file(redis_url: str, tmp_path: Path) -> None:
    """As containers get what holds a password; the command line wins, and two that differ are refused."""
    secret = tmp_path / "redis_url"
    secret.write_text(f"{redis_url}\n")
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    run = CliRunner(env={"FLEET_REDIS_URL_FILE": str(secret)})
    app = build_app([])
    assert run.invoke(app, ["models", "declare", "m"]).exit_code == 0
    assert run.invoke(app, ["models", "list"], env={"FLEET_REDIS_URL": redis_url}).stdout == "m\toperator\n"
    secret.write_text(nowhere)
    assert run.invoke(app, ["models", "list", "--redis-url", redis_url]).stdout == "m\toperator\n"
    for content, message in ((nowhere, "differ: leave one out"), ("", "is empty")):
        secret.write_text(content)
        refused = run.invoke(app, ["models", "list"], env={"FLEET_REDIS_URL": redis_url})
        assert isinstance(refused.exception, InvalidRequest)
        assert message in str(refused.exception)
    secret.unlink()
    assert "cannot be read" in str(run.invoke(app, ["models", "list"]).exception)


@pytest.mark.parametrize("command", ["status", "result", "stream", "cancel"])
def test_a_server_that_is_not_there_is_told_at_once(command: str) -> None:
    """Also where an outage would be waited for later."""
    assert "could not be reached" in failed(fleet(f"redis://127.0.0.1:{free_port()}/0", command, "some-id"))
