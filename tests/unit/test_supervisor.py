"""The supervisor over tiny real processes: what is started again, what is not, and how all of them end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil
import pytest

from tests.waiting import eventually
from workers.exit_codes import EXIT_CONFIGURATION, EXIT_ENGINE
from workers.supervisor import ALL_READY, RestartPolicy

CHILD = """
import os, pathlib, signal, sys, time
folder, plans = pathlib.Path(sys.argv[1]), sys.argv[2].split("|")
given = dict(zip(sys.argv[3::2], sys.argv[4::2]))
plan = plans[min(int(given["--slot"]), len(plans) - 1)].split(",")
starts = folder / ("starts-" + given["--slot"])
with starts.open("a") as file:
    file.write(f"{os.getpid()} {time.monotonic()} {os.environ['CUDA_VISIBLE_DEVICES']}\\n")
count = len(starts.read_text().splitlines())
step, _, code = plan[min(count, len(plan)) - 1].partition(":")
if step == "deaf":
    signal.signal(signal.SIGTERM, lambda *_: (folder / "asked").touch())
go = folder / ("go-" + given["--slot"])
while step in ("waits", "stalls") and not go.exists():
    time.sleep(0.01)
if step not in ("fails", "stalls"):
    pathlib.Path(given["--ready-file"]).write_text("ready")
while step == "until" and not go.exists():
    time.sleep(0.01)
if code:
    sys.exit(int(code))
while True:
    signal.pause()
"""
"""A worker that does as planned, one step per start, the last step for all further ones: ``fails:N`` ends with code N
before it is ready, ``ready:N`` after, ``serves`` stays, ``deaf`` stays and only notes that it was asked to end. Some
wait for the file ``go-SLOT``: ``waits`` and then serves, ``stalls:N`` and then fails, ``until:N`` when it is ready and
then ends. The plans of several slots are separated by a bar."""

SUPERVISOR = """
import json, logging, os, sys
from workers.placement import Slot
from workers.supervisor import RestartPolicy, Supervisor
given = json.loads(sys.argv[1])
logging.basicConfig(filename=given["folder"] + "/log", level=logging.INFO)
sys.exit(Supervisor(
    command=given["command"],
    slots=[Slot(index, tuple(gpus)) for index, gpus in enumerate(given["gpus"])],
    policy=RestartPolicy(0.05, 0.2, 3),
    drain_timeout_seconds=given["drain_timeout_seconds"],
    environ=os.environ,
    run_folder=given["folder"],
).run())
"""
LONG_SECONDS = 600.0


@dataclass
class Supervised:
    """A supervisor in a process of its own, as in life: it takes the signals of its process."""

    folder: Path
    plan: str
    gpus: Sequence[Sequence[str]] = ((),)
    drain_timeout_seconds: float = LONG_SECONDS

    def __enter__(self) -> Self:
        command = [sys.executable, "-I", "-S", "-c", CHILD, str(self.folder), self.plan]
        given = {
            "command": command,
            "gpus": self.gpus,
            "drain_timeout_seconds": self.drain_timeout_seconds,
            "folder": str(self.folder),
        }
        self.process = subprocess.Popen([sys.executable, "-c", SUPERVISOR, json.dumps(given)])
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.alive():
            os.kill(pid, signal.SIGKILL)

    def starts(self, slot: int = 0) -> list[list[str]]:
        """Process id, time in seconds and GPUs of each start."""
        path = self.folder / f"starts-{slot}"
        return [line.split(" ") for line in path.read_text().splitlines()] if path.exists() else []

    def alive(self) -> list[int]:
        """Workers that still run."""
        pids = [int(start[0]) for slot in range(len(self.gpus)) for start in self.starts(slot)]
        return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]

    def go(self, slot: int) -> None:
        """Let a worker go on that waits, in all its starts."""
        (self.folder / f"go-{slot}").touch()

    def is_ready(self, slot: int = 0) -> bool:
        """Whether the worker says that it takes jobs."""
        return (self.folder / f"ready-{slot}").exists()

    def exit_code(self) -> int:
        """Wait for the supervisor's end."""
        return self.process.wait(20)


@pytest.mark.parametrize(
    ("failures", "delay_seconds"),
    [
        (1, 0.5),  # the first restart is quick
        (2, 1.0),
        (4, 4.0),
        (5, 5.0),  # bounded
        (5_000, 5.0),  # a worker that failed for days must not end its supervisor with an overflow
    ],
)
def test_the_back_off_doubles_up_to_its_bound(failures: int, delay_seconds: float) -> None:
    """Per failure in a row."""
    assert RestartPolicy(0.5, 5.0, 3).delay_seconds(failures) == delay_seconds


def test_a_worker_that_was_ready_is_started_again(tmp_path: Path) -> None:
    """After its back-off; SIGTERM ends both, with exit code 0 and without a ready file."""
    with Supervised(tmp_path, "ready:70,serves") as supervised:
        eventually(lambda: len(supervised.starts()) == 2 and supervised.is_ready(), what="the second start")
        first, second = (float(start[1]) for start in supervised.starts())
        assert second - first >= 0.05
        supervised.process.send_signal(signal.SIGTERM)
        assert supervised.exit_code() == 0
        assert supervised.alive() == []
        assert not supervised.is_ready()


@pytest.mark.parametrize("code", [1, EXIT_ENGINE])
def test_a_worker_that_never_became_ready_ends_the_supervisor_with_its_code(tmp_path: Path, code: int) -> None:
    """Who starts a fleet that cannot work is to see it at once."""
    with Supervised(tmp_path, f"fails:{code}") as supervised:
        assert supervised.exit_code() == code
        assert len(supervised.starts()) == 1


def test_the_log_says_when_the_last_worker_of_a_gpu_takes_jobs(tmp_path: Path) -> None:
    """The first may work long before: one starts after the other."""
    with Supervised(tmp_path, "serves|waits", gpus=[("0",), ("0",)]) as supervised:
        eventually(lambda: supervised.is_ready(0) and supervised.starts(1), what="the second starts")
        assert ALL_READY not in (tmp_path / "log").read_text()
        supervised.go(1)
        eventually(lambda: f"{ALL_READY} (2)" in (tmp_path / "log").read_text(), what="the log says so")


def test_wrong_settings_are_never_tried_again(tmp_path: Path) -> None:
    """Not even by a worker that had worked before: somebody changed the file."""
    with Supervised(tmp_path, f"ready:70,fails:{EXIT_CONFIGURATION}") as supervised:
        assert supervised.exit_code() == EXIT_CONFIGURATION
        assert len(supervised.starts()) == 2


def test_too_many_failed_starts_in_a_row_end_the_supervisor(tmp_path: Path) -> None:
    """A worker that worked once is tried three times more."""
    with Supervised(tmp_path, "ready:70,fails:70") as supervised:
        assert supervised.exit_code() == EXIT_ENGINE
        assert len(supervised.starts()) == 4


def test_failed_starts_count_only_in_a_row(tmp_path: Path) -> None:
    """One good start in between, and the count begins anew."""
    with Supervised(tmp_path, "ready:70,fails:70,fails:70,ready:70,fails:70,fails:70,serves") as supervised:
        eventually(lambda: len(supervised.starts()) == 7 and supervised.is_ready(), what="the seventh start")
        assert supervised.process.poll() is None


def test_one_hopeless_worker_stops_the_others(tmp_path: Path) -> None:
    """They leave nothing behind; a fleet that serves with half of its engines would go unnoticed."""
    plan = f"serves|ready:70,fails:{EXIT_CONFIGURATION}"
    with Supervised(tmp_path, plan, gpus=((), ())) as supervised:
        assert supervised.exit_code() == EXIT_CONFIGURATION
        assert supervised.alive() == []


def test_each_worker_has_its_own_gpus_and_an_interrupt_ends_all(tmp_path: Path) -> None:
    """Ctrl-C is as good as SIGTERM."""
    with Supervised(tmp_path, "serves", gpus=(("0",), ("1", "2"))) as supervised:
        eventually(lambda: supervised.is_ready(0) and supervised.is_ready(1), what="both serve")
        assert [supervised.starts(slot)[0][2] for slot in (0, 1)] == ["0", "1,2"]
        supervised.process.send_signal(signal.SIGINT)
        assert supervised.exit_code() == 0
        assert supervised.alive() == []


def test_engines_of_one_gpu_start_one_after_another(tmp_path: Path) -> None:
    """Each measures the free memory of its GPU while it starts; an engine of another GPU waits for nobody."""
    with Supervised(tmp_path, "waits", gpus=(("0",), ("1",), ("0",))) as supervised:
        eventually(lambda: supervised.starts(0) and supervised.starts(1), what="the first of each GPU")
        supervised.go(1)
        eventually(lambda: supervised.is_ready(1), what="the other GPU's engine is ready")
        assert supervised.starts(2) == []
        supervised.go(0)
        eventually(lambda: supervised.starts(2), what="the second of GPU 0")
        ready_at = (tmp_path / "ready-0").stat().st_mtime_ns
        assert (tmp_path / "starts-2").stat().st_mtime_ns > ready_at


def test_a_worker_that_comes_back_waits_for_its_neighbours_start(tmp_path: Path) -> None:
    """Not only at the first start: slot 0 dies while slot 1 starts, and is back when that is done."""
    with Supervised(tmp_path, "until:70,serves|waits", gpus=(("0",), ("0",))) as supervised:
        eventually(lambda: supervised.starts(1), what="the neighbour starts")
        supervised.go(0)
        eventually(lambda: len(supervised.alive()) == 1, what="slot 0 is gone")
        supervised.go(1)
        eventually(lambda: len(supervised.starts(0)) == 2, what="slot 0 is back")
        assert (tmp_path / "starts-0").stat().st_mtime_ns > (tmp_path / "ready-1").stat().st_mtime_ns


def test_a_first_start_that_a_neighbours_end_spoiled_is_tried_again(tmp_path: Path) -> None:
    """Memory that becomes free while vLLM measures it ends the start; the settings are not to blame."""
    with Supervised(tmp_path, "until:70,serves|stalls:70,serves", gpus=(("0",), ("0",))) as supervised:
        eventually(lambda: supervised.starts(1), what="the neighbour starts")
        supervised.go(0)
        eventually(lambda: len(supervised.alive()) == 1, what="slot 0 is gone")
        supervised.go(1)
        eventually(lambda: supervised.is_ready(0) and supervised.is_ready(1), what="both serve")
        assert supervised.process.poll() is None


def test_a_second_signal_does_not_wait_for_the_drain(tmp_path: Path) -> None:
    """Asked twice, the supervisor kills what still drains."""
    with Supervised(tmp_path, "deaf") as supervised:
        eventually(supervised.is_ready, what="the worker serves")
        supervised.process.send_signal(signal.SIGTERM)
        eventually((tmp_path / "asked").exists, what="the worker is asked to end")
        assert supervised.process.poll() is None
        assert len(supervised.alive()) == 1
        supervised.process.send_signal(signal.SIGTERM)
        assert supervised.exit_code() == 0
        assert supervised.alive() == []
