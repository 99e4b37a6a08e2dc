"""What is released: two distributions of one version, whose sdists make the same wheels, and which install and run."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = {"inference_fleet": ROOT, "inference_fleet_producer": ROOT / "producer"}


def run(*command: str | Path, cwd: Path) -> str:
    """What a command that must succeed prints."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def version() -> str:
    """As it stands in the one place that the others are written from."""
    return str(tomllib.loads((ROOT / "producer/pyproject.toml").read_text())["project"]["version"])


def test_the_version_is_the_same_everywhere() -> None:
    """Both distributions, the one that the full install asks for, and every image."""
    full = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    images = re.findall(r"^ARG VERSION=(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert full["version"] == version()
    assert f"inference-fleet-producer[gateway]=={version()}" in full["dependencies"]
    assert len(images) == 3
    assert set(images) == {version()}


def test_one_command_writes_another_version(tmp_path: Path) -> None:
    """In all of these places; what is no version is refused."""
    for name in ("scripts/set_version.sh", "pyproject.toml", "producer/pyproject.toml", "Dockerfile"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    script = tmp_path / "scripts/set_version.sh"
    run(script, "7.8.9", cwd=tmp_path)
    texts = [(tmp_path / name).read_text() for name in ("pyproject.toml", "producer/pyproject.toml", "Dockerfile")]
    assert [text.count("7.8.9") for text in texts] == [2, 1, 3]
    assert subprocess.run([script, "next"], check=False, capture_output=True).returncode == 2


@dataclass(frozen=True)
class Built:
    """What ``python -m build`` made, by distribution."""

    folder: Path

    def wheel(self, name: str, where: str = "dist") -> Path:
        """Its wheel."""
        [found] = (self.folder / where).glob(f"{name}-[0-9]*.whl")
        return found

    def sdist(self, name: str) -> Path:
        """Its sources."""
        [found] = (self.folder / "dist").glob(f"{name}-[0-9]*.tar.gz")
        return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Wheels made from the tree, and sdists; and wheels made from those sdists alone."""
    folder = tmp_path_factory.mktemp("built")
    for name, project in PROJECTS.items():
        run(sys.executable, "-m", "build", "--sdist", "--wheel", "--outdir", folder / "dist", project, cwd=folder)
        with tarfile.open(next((folder / "dist").glob(f"{name}-[0-9]*.tar.gz"))) as archive:
            archive.extractall(folder / "sources", filter="data")
        [sources] = (folder / "sources").glob(f"{name}-[0-9]*")
        run(sys.executable, "-m", "build", "--wheel", "--outdir", folder / "again", sources, cwd=folder)
    return Built(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROJECTS)
def test_an_sdist_makes_the_same_wheel(built: Built, name: str) -> None:
    """File for file, byte for byte."""
    first, again = built.wheel(name), built.wheel(name, "again")
    with zipfile.ZipFile(first) as one, zipfile.ZipFile(again) as other:
        assert {info.filename: info.CRC for info in one.infolist()} == {i.filename: i.CRC for i in other.infolist()}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROJECTS)
def test_each_has_the_license_with_it(built: Built, name: str) -> None:
    """The producer has a copy of its own, since it is built from its folder alone."""
    with zipfile.ZipFile(built.wheel(name)) as archive:
        [license_file] = [one for one in archive.namelist() if one.endswith(".dist-info/licenses/LICENSE")]
        assert archive.read(license_file) == (ROOT / "LICENSE").read_bytes()


@pytest.mark.slow
def test_the_full_wheel_has_all_of_its_files_and_nothing_else(built: Built) -> None:
    """Scripts, profiles and type markers; no tests, no benchmarks."""
    with zipfile.ZipFile(built.wheel("inference_fleet")) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    folders = [ROOT / "workers", ROOT / "config"]
    files = {str(path.relative_to(ROOT)) for folder in folders for path in folder.rglob("*") if path.is_file()}
    assert names == {name for name in files if "__pycache__" not in name}
    assert {"workers/transport/claim.lua", "workers/py.typed", "config/py.typed"} <= names
    assert any(name.startswith("config/profiles/") and name.endswith(".toml") for name in names)


@pytest.mark.slow
def test_an_index_would_take_them(built: Built) -> None:
    """Metadata and descriptions are as they have to be, by the index's own checker."""
    pytest.importorskip("twine", reason="twine is in the development group")
    files = sorted((built.folder / "dist").iterdir())
    assert len(files) == 4
    run(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=built.folder)


@pytest.mark.slow
def test_the_full_install_has_every_command(built: Built, tmp_path: Path) -> None:
    """Both wheels, in a fresh environment that borrows our dependencies but none of our code."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    [packages] = (tmp_path / "venv/lib").glob("python*/site-packages")
    wheels = [built.wheel(name) for name in PROJECTS]
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", *wheels, cwd=tmp_path)
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    shown = run(tmp_path / "venv/bin/fleet", "--help", cwd=tmp_path)
    assert all(command in shown for command in ("submit", "worker", "gateway", "flower", "doctor"))
    where = run(python, "-c", "import workers, producer; print(workers.__file__, producer.__file__)", cwd=tmp_path)
    assert all(place.startswith(str(packages)) for place in where.split())
    assert '"redis.url"' in run(tmp_path / "venv/bin/fleet", "config", "show", "--json", cwd=tmp_path)
