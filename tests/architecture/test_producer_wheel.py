"""The producer's wheel alone: what is in it, what it pulls in, and that it runs beside an app's own ``config``."""

import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from producer import Producer, keys
from producer.contract import Priority
from tests.running import RunningFleet

ROOT = Path(__file__).parents[2]

WEB_APP = """
import json, sys
from producer import Producer

with Producer(sys.argv[1]) as producer:
    submission = producer.submit(model="m", prompt="from a web app")
heavy = [name for name in ("torch", "vllm", "celery", "kombu", "workers", "config") if name in sys.modules]
print(json.dumps({"job_id": submission.job_id, "heavy": heavy}))
"""


WAITING_APP = """
import json, sys
from producer import Producer

with Producer(sys.argv[1]) as producer:
    job = producer.submit(model=sys.argv[2], prompt="from a web app", sampling={"max_tokens": 5, "ignore_eos": True})
    result = producer.result(job, timeout_seconds=60)
print(json.dumps({"tokens": result.usage.completion_tokens, "worker": result.worker}))
"""


@dataclass(frozen=True)
class ProducerVenv:
    """A fresh environment with nothing but the producer's wheel and what that asks for."""

    wheel: Path
    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def run(self, *command: str | Path, cwd: Path) -> str:
        """Standard output of a command in it that must succeed."""
        return _run(self.folder / "bin" / command[0], *command[1:], cwd=cwd)


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def producer_venv(tmp_path_factory: pytest.TempPathFactory) -> ProducerVenv:
    """The wheel, built as for a release, and installed where nothing else is."""
    folder = tmp_path_factory.mktemp("producer")
    _run(sys.executable, "-m", "build", "--wheel", "--outdir", folder / "dist", ROOT / "producer", cwd=folder)
    [wheel] = (folder / "dist").glob("*.whl")
    _run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    venv = ProducerVenv(wheel, folder / "venv")
    venv.run("python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    return venv


def test_the_wheel_has_one_top_level_package_and_all_of_its_files(producer_venv: ProducerVenv) -> None:
    """Nothing that could shadow an app's own modules; the script and the type marker are there."""
    names = zipfile.ZipFile(producer_venv.wheel).namelist()

    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"producer"}
    files = (path for path in (ROOT / "producer").rglob("*") if path.suffix in {".py", ".lua", ".html", ".css", ".js"})
    sources = {str(path.relative_to(ROOT)) for path in files}
    assert sources | {"producer/py.typed"} <= set(names)
    assert not any(name.endswith("pyproject.toml") or "__pycache__" in name for name in names)


def test_the_wheel_asks_for_nothing_heavy(producer_venv: ProducerVenv) -> None:
    """Neither in its metadata nor in what was installed for it; Celery only comes with the extra."""
    with zipfile.ZipFile(producer_venv.wheel) as archive:
        [name] = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    installed = producer_venv.run("python", "-m", "pip", "list", "--format=freeze", cwd=producer_venv.folder).lower()

    for heavy in ("torch", "vllm", "celery", "kombu", "pydantic-settings"):
        assert heavy not in " ".join(required)
        assert f"\n{heavy}==" not in f"\n{installed}"


def test_it_submits_beside_an_app_whose_own_config_raises_on_import(
    producer_venv: ProducerVenv, redis_url: str, tmp_path: Path
) -> None:
    """A web app has its own ``config`` and ``workers``; the producer touches neither."""
    for name in ("config", "workers"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('the app\\'s own {name} was imported')\n")
    (tmp_path / "app.py").write_text(WEB_APP)
    with Producer(redis_url) as producer:
        producer.declare_model("m")

    printed = producer_venv.run("python", "app.py", redis_url, cwd=tmp_path)

    with redis.Redis.from_url(redis_url) as client:
        message = str(client.lindex(keys.lane("m", Priority.NORMAL), 0))
    assert '"heavy": []' in printed
    assert "from a web app" in message


def test_a_round_trip_from_there_is_answered_by_a_real_worker(
    producer_venv: ProducerVenv, fleet: RunningFleet, tmp_path: Path
) -> None:
    """Submit and wait, in the environment that has only the wheel, for a worker in another one."""
    (tmp_path / "config.py").write_text("raise RuntimeError('the app\\'s own config was imported')\n")
    (tmp_path / "app.py").write_text(WAITING_APP)
    printed = producer_venv.run("python", "app.py", fleet.redis_url, fleet.served, cwd=tmp_path)
    answer = json.loads(printed)
    assert answer["tokens"] == 5
    assert answer["worker"].startswith(fleet.served)


def test_its_command_line_works_alone(producer_venv: ProducerVenv, redis_url: str, tmp_path: Path) -> None:
    """With the commands of the producer only."""
    assert "submit" in producer_venv.run("fleet", "--help", cwd=tmp_path)
    producer_venv.run("fleet", "models", "declare", "m", "--redis-url", redis_url, cwd=tmp_path)
    assert "m\toperator" in producer_venv.run("fleet", "models", "list", "--redis-url", redis_url, cwd=tmp_path)


def test_the_gateway_says_which_packages_it_misses(producer_venv: ProducerVenv) -> None:
    """The light install has no web server in it."""
    command = [producer_venv.folder / "bin" / "fleet", "gateway"]
    done = subprocess.run(command, cwd=producer_venv.folder, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "pip install 'inference-fleet-producer[gateway]'" in done.stderr) == (1, True)
