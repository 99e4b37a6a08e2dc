"""``fleet models`` against a hub of our own: a real server, the real command, real files."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model_hub import COMMIT, GOOD_TOKEN, OTHER_TOKEN, Repository, folder_files, model_hub
from tests.model_machine import NAME, Machine
from tests.running import FLEET
from tests.waiting import eventually
from workers.embedded import EmbeddedServer

OTHER_COMMIT = "b" * 40


@pytest.fixture
def machine(tmp_path: Path, tiny_model: Path) -> Iterator[Machine]:
    """A machine with nothing, and a hub with the tiny model beside formats and papers that vLLM does not read."""
    noise = {"pytorch_model.bin": b"p" * 1000, "README.md": b"# Tiny", "onnx/model.onnx": b"o", ".gitattributes": b""}
    with model_hub() as hub:
        hub.repositories[NAME] = Repository(folder_files(tiny_model) | noise)
        yield Machine(hub, tmp_path)


def test_pull_fetches_what_vllm_reads_and_names_the_commit(machine: Machine, tiny_model: Path) -> None:
    """Not the same weights in another format; the branch's name is kept for workers that are offline."""
    done = machine.run("pull", NAME)
    assert done.returncode == 0, done.stderr
    assert f"at commit {COMMIT}" in done.stdout
    assert f'model.revision = "{COMMIT}"' in done.stdout
    assert {path.name for path in machine.snapshot().iterdir()} == {path.name for path in tiny_model.iterdir()}
    assert (machine.snapshot() / "model.safetensors").read_bytes() == (tiny_model / "model.safetensors").read_bytes()
    assert (machine.repository / "refs/main").read_text() == COMMIT
    assert done.stderr == ""  # no terminal, no progress bars


def test_what_is_here_is_not_fetched_again(machine: Machine) -> None:
    """A second pull only asks which commit it is."""
    assert machine.run("pull", NAME).returncode == 0
    machine.hub.asked.clear()
    done = machine.run("pull", NAME)
    assert done.returncode == 0, done.stderr
    assert "0.0 MB to fetch" in done.stdout
    assert machine.hub.fetched() == []


def test_patterns_choose_other_files(machine: Machine) -> None:
    """Those of --include, without those of --exclude."""
    done = machine.run("pull", NAME, "--include", "*.json", "--include", "*.md", "--exclude", "tokenizer*")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in machine.snapshot().iterdir()}
    assert names == {"config.json", "generation_config.json", "README.md"}
    assert "no files of these patterns" in machine.run("pull", NAME, "--include", "*.exe").stderr


def test_the_settings_say_which_model_and_revision(machine: Machine) -> None:
    """Without a name on the command line; a tag is looked up, and what it is can be pinned."""
    machine.hub.repositories[NAME].commits["v1"] = OTHER_COMMIT
    done = machine.run("pull", FLEET_MODEL=NAME, FLEET_MODEL__REVISION="v1")
    assert done.returncode == 0, done.stderr
    assert machine.snapshot(OTHER_COMMIT).is_dir()
    assert (machine.repository / "refs/v1").read_text() == OTHER_COMMIT
    assert machine.run("verify", NAME, "--revision", OTHER_COMMIT).returncode == 0
    assert machine.run("pull").stderr.startswith("fleet models pull: no model: name one, or set FLEET_MODEL")


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({}, "is gated: accept its terms at"),
        ({"HF_TOKEN": OTHER_TOKEN}, "this token's account has no access yet: ask for it at"),
    ],
)
def test_a_gated_model_says_how_to_get_it(machine: Machine, variables: dict[str, str], sentence: str) -> None:
    """Without a token, and with one that was not let in; neither is shown."""
    machine.hub.repositories[NAME].is_gated = True
    done = machine.run("pull", NAME, **variables)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert f"{machine.hub.url}/{NAME}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert OTHER_TOKEN not in done.stdout + done.stderr


def test_a_token_in_a_file_opens_a_gated_model(machine: Machine) -> None:
    """It reaches the hub, and neither output nor process list; an empty or missing file is refused."""
    machine.hub.repositories[NAME].is_gated = True
    file = machine.folder / "token"
    file.write_text("\n")
    assert f"--token-file {file} is empty" in machine.run("pull", NAME, "--token-file", str(file)).stderr
    assert "cannot be read" in machine.run("pull", NAME, "--token-file", str(file) + "2").stderr
    file.write_text(GOOD_TOKEN + "\n")
    done = machine.run("pull", NAME, "--token-file", str(file))
    assert done.returncode == 0, done.stderr
    about = [asked for asked in machine.hub.asked if NAME in asked.path]
    assert {asked.token for asked in about if not asked.path.startswith("/large/")} == {GOOD_TOKEN}
    assert {asked.token for asked in about if asked.path.startswith("/large/")} == {None}
    assert GOOD_TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("acme/none",), "the hub has no model acme/none, or it is private"),
        ((NAME, "--revision", "v9"), f"{NAME} has no revision 'v9': set model.revision"),
        (("no/such/name",), "'no/such/name' is no model name"),
        (("/no/folder",), "/no/folder is a folder on this machine: there is nothing to pull"),
    ],
)
def test_what_is_not_there_is_named(machine: Machine, arguments: tuple[str, ...], sentence: str) -> None:
    """In one line, with exit code 1, and nothing is left in the cache."""
    done = machine.run("pull", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert not machine.repository.exists()


def test_a_hub_that_cannot_be_reached_is_named(machine: Machine) -> None:
    """Nobody listens on port 9."""
    done = machine.run("pull", NAME, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "the model hub at http://127.0.0.1:9 could not be reached" in done.stderr


def test_offline_says_that_it_cannot_pull(machine: Machine) -> None:
    """And asks nobody."""
    done = machine.run("pull", NAME, HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert machine.hub.asked == []


def test_a_disk_that_is_too_small_is_named_before_anything_is_fetched(machine: Machine) -> None:
    """The listing claims an exabyte."""
    machine.hub.repositories[NAME].claimed_bytes = {"model.safetensors": 10**18}
    done = machine.run("pull", NAME)
    assert done.returncode == 1
    assert "needs 1,000,000,000,000." in done.stderr
    assert "set HF_HOME to another disk" in done.stderr
    assert machine.hub.fetched() == []
    assert not machine.repository.exists()


def test_a_connection_that_is_cut_goes_on_where_it_ended(machine: Machine) -> None:
    """By a range, within the same pull: after the last whole piece of 10 MiB."""
    content = os.urandom(12 * 2**20)
    machine.hub.repositories[NAME] = Repository({"config.json": b"{}", "model.safetensors": content})
    machine.hub.cuts["model.safetensors"] = [11 * 2**20]
    done = machine.run("pull", NAME)
    assert done.returncode == 0, done.stderr
    ranges = [asked.byte_range for asked in machine.hub.asked if asked.byte_range]
    assert ranges == [f"bytes={10 * 2**20}-"]
    assert (machine.snapshot() / "model.safetensors").read_bytes() == content


def test_a_pull_that_was_killed_goes_on_with_what_is_whole(machine: Machine, tiny_model: Path) -> None:
    """Until then it is known to be incomplete, and its branch's name leads nowhere."""
    machine.hub.held["model.safetensors"] = threading.Event()
    small = {path.name for path in tiny_model.iterdir()} - {"model.safetensors"}
    command = [*FLEET, "models", "pull", NAME]
    with subprocess.Popen(
        command, env=machine.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as one:
        eventually(
            lambda: machine.snapshot().is_dir() and {path.name for path in machine.snapshot().iterdir()} == small,
            seconds=60,
            what="all but the weights",
        )
        one.send_signal(signal.SIGKILL)
    assert "incomplete" in machine.run("list", "--downloaded").stdout
    assert not (machine.repository / "refs/main").exists()
    assert machine.run("preload", NAME, "--revision", COMMIT, HF_HUB_OFFLINE="1").returncode == 1

    machine.hub.held.clear()
    machine.hub.asked.clear()
    done = machine.run("pull", NAME)
    assert done.returncode == 0, done.stderr
    assert set(machine.hub.fetched()) == {"model.safetensors"}
    assert machine.run("verify", NAME).returncode == 0


@pytest.mark.parametrize("is_truncated", [True, False])
def test_verify_finds_what_was_changed_and_pull_repairs_it(machine: Machine, *, is_truncated: bool) -> None:
    """A byte in the middle, or the end cut off; without asking the hub."""
    assert machine.run("pull", NAME).returncode == 0
    weights = (machine.snapshot() / "model.safetensors").resolve()
    content = weights.read_bytes()
    middle = len(content) // 2
    weights.write_bytes(content[:middle] if is_truncated else content[:middle] + b"\xff\xfe" + content[middle + 2 :])

    found = machine.run("verify", NAME, HF_HUB_OFFLINE="1")
    assert found.returncode == 1
    assert found.stdout.startswith("model.safetensors is not what the hub has")
    assert "--repair" in found.stderr
    preloaded = machine.run("preload", NAME, HF_HUB_OFFLINE="1")
    assert preloaded.returncode == (1 if is_truncated else 0), "sizes alone do not show a changed byte"

    machine.hub.asked.clear()
    repaired = machine.run("pull", NAME, "--repair")
    assert repaired.returncode == 0, repaired.stderr
    assert set(machine.hub.fetched()) == {"model.safetensors"}
    assert weights.read_bytes() == content
    assert "every byte is what the hub has" in machine.run("verify", NAME).stdout


def test_verify_knows_files_that_somebody_else_fetched(machine: Machine) -> None:
    """By the names of their blobs: vLLM itself leaves no record."""
    assert machine.run("pull", NAME).returncode == 0
    for record in (machine.repository / "fleet").iterdir():
        record.unlink()
    assert machine.run("verify", NAME).returncode == 0
    (machine.snapshot() / "config.json").resolve().write_text("{}")
    found = machine.run("verify", NAME)
    assert found.returncode == 1
    assert found.stdout.startswith("config.json is not what the hub has")


def test_list_shows_what_is_here(machine: Machine, redis_server: EmbeddedServer) -> None:
    """Name, commit and branch, whether it is whole, size; without the flag the list is the fleet's, as ever."""
    assert "no models in" in machine.run("list", "--downloaded").stdout
    assert machine.run("pull", NAME).returncode == 0
    head, line = machine.run("list", "--downloaded").stdout.splitlines()
    assert head.split() == ["model", "revision", "state", "used", "GB"]
    assert line.split()[:4] == [NAME, COMMIT[:12], "main", "complete"]
    assert float(line.split()[-1]) > 0
    declared = machine.run("declare", "m", FLEET_REDIS_URL=redis_server.url)
    assert declared.returncode == 0, declared.stderr
    assert "m\toperator" in machine.run("list", FLEET_REDIS_URL=redis_server.url).stdout


def test_remove_asks_and_keeps_what_another_revision_has(machine: Machine) -> None:
    """One revision, then all of the model; a name that is not here is refused."""
    repository = machine.hub.repositories[NAME]
    assert machine.run("pull", NAME).returncode == 0
    repository.commits["main"] = OTHER_COMMIT
    assert machine.run("pull", NAME).returncode == 0

    kept = machine.run("remove", NAME, answer="n\n")
    assert kept.returncode == 1
    assert machine.snapshot(COMMIT).is_dir()
    gone = machine.run("remove", NAME, "--revision", COMMIT, "--yes")
    assert gone.returncode == 0, gone.stderr
    assert not machine.snapshot(COMMIT).exists()
    assert machine.run("verify", NAME).returncode == 0
    assert machine.run("remove", NAME, "--yes").returncode == 0
    assert not machine.repository.exists()
    refused = machine.run("remove", NAME, "--yes")
    assert (refused.returncode, "is not in the cache" in refused.stderr) == (1, True)


def test_preload_fetches_once_and_then_asks_nobody(machine: Machine) -> None:
    """The model is that of the settings, as in an init container; a second one needs no network."""
    first = machine.run("preload", FLEET_MODEL=NAME)
    assert first.returncode == 0, first.stderr
    machine.hub.asked.clear()
    second = machine.run("preload", FLEET_MODEL=NAME, HF_HUB_OFFLINE="1")
    assert second.returncode == 0, second.stderr
    assert f"{NAME} at commit {COMMIT} is here, and looks whole" in second.stdout
    assert machine.hub.asked == []


def test_preload_is_content_with_a_whole_folder_alone(machine: Machine, tiny_model: Path) -> None:
    """A folder is nobody's to fetch; one that lacks something is named with what it lacks."""
    assert machine.run("preload", FLEET_MODEL=str(tiny_model)).returncode == 0
    (machine.folder / "half").mkdir()
    half = machine.run("preload", str(machine.folder / "half"))
    assert half.returncode == 1
    assert "config.json is missing" in half.stderr
    assert "there are no weights" in half.stderr
    assert machine.hub.asked == []
