"""What the files of the compose stack say of the fleet is true of it."""

import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy/compose"


def test_prometheus_loads_the_rules_where_the_stack_mounts_them() -> None:
    """A folder that is mounted elsewhere would leave it without alerts, and without a word."""
    [pattern] = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())["rule_files"]
    stack = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    mounts = [one.split(":") for one in stack["services"]["prometheus"]["volumes"]]
    [(source, _, mode)] = [mount for mount in mounts if mount[1] == str(Path(pattern).parent)]
    assert mode == "ro"
    assert list((ROOT / source).glob(Path(pattern).name))


def test_secrets_are_made_once_and_none_is_in_the_list_of_users(tmp_path: Path) -> None:
    """A second run keeps every password; the users' list has hashes alone; the folder is its owner's."""
    folder = tmp_path / "secrets"
    subprocess.run([COMPOSE / "make_secrets.sh", folder], check=True, capture_output=True)
    first = {file.name: file.read_text() for file in folder.iterdir()}
    subprocess.run([COMPOSE / "make_secrets.sh", folder], check=True, capture_output=True)
    assert {file.name: file.read_text() for file in folder.iterdir()} == first
    passwords = [match[1] for text in first.values() for match in re.finditer(r":([0-9a-f]{48})(?:@|$)", text)]
    assert len(passwords) == len(set(passwords)) == 7
    assert not any(password in first["redis_users"] for password in passwords)
    assert re.findall(r"^user (\w+) on #[0-9a-f]{64} ", first["redis_users"], re.MULTILINE) == [
        "health",
        "backup",
        "producer",
        "gateway",
        "worker",
        "observer",
        "exporter",
        "operator",
    ]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_images_install_the_packages_that_the_project_pins() -> None:
    """The lists of exact versions agree with each other, and with what Celery's internals are held to."""
    lists = {
        name: dict(
            re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / f"deploy/requirements/{name}.txt").read_text(), re.MULTILINE)
        )
        for name in ("service", "cpu", "gpu")
    }
    assert (lists["service"]["celery"], lists["service"]["kombu"]) == ("5.7.0", "5.7.0")
    assert lists["service"].items() <= lists["cpu"].items()
    differing = {name for name, version in lists["service"].items() if lists["gpu"][name] != version}
    assert differing <= {"protobuf"}  # scripts/lock.sh says why
