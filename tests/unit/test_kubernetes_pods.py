"""What runs in each pod: hardened, and with settings, ports and times that the code has too."""

import base64
import re
import tomllib
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from config.loading import load_settings
from config.settings import Settings
from producer.cli import COMMAND_GROUP, build_app
from producer.gateway.callers import OPEN_PATHS
from tests.manifests import ROOT, Manifest, containers, copied, pods, rendered, the
from workers.observe.http import worker_pages
from workers.observe.phase import WorkerState

OVERLAYS: Final = ("overlays/cpu", "overlays/gpu")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the manifests, with Secrets."""
    return copied(tmp_path_factory.mktemp("manifests"))


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, copy: Path) -> list[Manifest]:
    """Each overlay with all that is beside it."""
    return [*rendered(copy / request.param), *rendered(copy / "operator")]


@pytest.fixture(scope="module")
def secrets(copy: Path) -> dict[str, dict[str, str]]:
    """The content of every Secret that is made, by name and key."""
    return {
        one["metadata"]["name"]: {key: base64.b64decode(value).decode() for key, value in one["data"].items()}
        for one in rendered(copy / "secrets")
        if one["kind"] == "Secret"
    }


def container_of(manifests: list[Manifest], name: str) -> Any:  # noqa: ANN401 - as YAML has it
    """The main container of a Deployment."""
    return the(manifests, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]


def environment(manifests: list[Manifest], container: Manifest) -> dict[str, str]:
    """As the container sees it."""
    sources = [source["configMapRef"]["name"] for source in container.get("envFrom", ())]
    found = {name: value for source in sources for name, value in the(manifests, "ConfigMap", source)["data"].items()}
    return found | {one["name"]: one["value"] for one in container.get("env", ())}


def settings_of(
    manifests: list[Manifest],
    pod: Manifest,
    container: Manifest,
    secrets: Mapping[str, Mapping[str, str]],
    folder: Path,
) -> Settings:
    """What a container's environment amounts to, its Secrets written where it says that they are."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", ())}
    environ = environment(manifests, container)
    for mount in container["volumeMounts"]:
        secret = volumes[mount["name"]].get("secret")
        if secret is None or secret.get("optional"):
            continue
        place = folder / secret["secretName"]
        place.mkdir(parents=True, exist_ok=True)
        for key, content in secrets[secret["secretName"]].items():
            (place / key).write_text(content)
        environ = {name: value.replace(mount["mountPath"], str(place)) for name, value in environ.items()}
    return load_settings(config_file=None, environ=environ, overrides={}).settings


def test_every_container_is_hardened(overlay: list[Manifest]) -> None:
    """No root, no privileges, no capability, nothing to write on but volumes, no token of the cluster, bounds."""
    names = set()
    for name, pod in pods(overlay):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        for container in containers(pod):
            names.add(container["name"])
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, container["name"]
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys(), container["name"]
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), container["name"]
    assert names == {"redis", "gateway", "exporter", "flower", "preload", "worker", "operator"}


def test_what_is_mounted_is_there_and_secrets_are_only_read(overlay: list[Manifest]) -> None:
    """A Secret is mounted in its own container, read-only, and readable by its group alone."""
    for name, pod in pods(overlay):
        claimed = [claim["metadata"] for claim in (the_set(overlay, name) or {}).get("volumeClaimTemplates", ())]
        volumes = {volume["name"]: volume for volume in [*pod["spec"].get("volumes", ()), *claimed]}
        for container in containers(pod):
            for mount in container["volumeMounts"]:
                volume = volumes[mount["name"]]
                if "secret" in volume:
                    assert mount["readOnly"] is True, name
                    assert volume["secret"]["defaultMode"] == 0o440, name
        mounted = {mount["name"] for container in containers(pod) for mount in container["volumeMounts"]}
        assert mounted == volumes.keys(), name


def the_set(manifests: list[Manifest], name: str) -> Any:  # noqa: ANN401 - as YAML has it
    """The spec of the StatefulSet of this name, if there is one."""
    return next(
        (one["spec"] for one in manifests if (one["kind"], one["metadata"]["name"]) == ("StatefulSet", name)), None
    )


def test_images_are_of_this_version(overlay: list[Manifest]) -> None:
    """Our own have the project's version, others one of theirs; none is whatever is latest."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {container["image"] for _, pod in pods(overlay) for container in containers(pod)}
    ours = {image for image in images if image.startswith("inference-fleet-")}
    assert {image.partition(":")[2] for image in ours} == {version}
    assert {image.partition(":")[0].removeprefix("inference-fleet-") for image in ours} in (
        {"service", "cpu"},
        {"service", "gpu"},
    )
    assert len(images - ours) == 1
    compose = (ROOT / "docker-compose.yml").read_text()
    assert all(re.search(r":\d", image) and image in compose for image in images - ours)


def test_nothing_secret_is_in_a_manifest(overlay: list[Manifest], secrets: Mapping[str, Mapping[str, str]]) -> None:
    """Secrets are named, not held; variables name files; and all that pods name is made."""
    assert [one["metadata"]["name"] for one in overlay if one["kind"] == "Secret"] == []
    named, optional = set(), set()
    for name, pod in pods(overlay):
        for volume in pod["spec"].get("volumes", ()):
            if "secret" in volume:
                (optional if volume["secret"].get("optional") else named).add(volume["secret"]["secretName"])
        for container in containers(pod):
            for variable, value in environment(overlay, container).items():
                is_open = not re.search(r"TOKEN|PASSWORD|AUTH|URL|SECRET|KEY$", variable)
                assert is_open or value.startswith("/run/secrets/"), f"{name}: {variable}"
    assert named == secrets.keys()
    assert optional == {"hub-token"}


def test_environments_are_settings_that_are_accepted(
    overlay: list[Manifest], secrets: Mapping[str, Mapping[str, str]], tmp_path: Path
) -> None:
    """A misspelled variable, or a Secret without the file that one names, would keep a pod from starting."""
    users = {}
    for name, pod in pods(overlay):
        for container in containers(pod):
            if container["name"] == "redis":
                continue
            loaded = settings_of(overlay, pod, container, secrets, tmp_path)
            if container["name"] == "preload":
                assert loaded.model.name == "Qwen/Qwen3-0.6B"
                continue
            users[name] = re.sub(r"^redis://(\w+):[0-9a-f]{48}@redis:6379/0$", r"\1", loaded.redis.url)
            assert loaded.model.name == ("Qwen/Qwen3-0.6B" if name == "worker" else "")
    assert users == {
        "gateway": "gateway",
        "worker": "worker",
        "exporter": "exporter",
        "flower": "observer",
        "operator": "operator",
    }


def test_doors_that_are_open_have_a_lock(
    overlay: list[Manifest], secrets: Mapping[str, Mapping[str, str]], tmp_path: Path
) -> None:
    """What listens beyond its pod: the gateway asks for keys, Flower for a user."""
    everywhere = "0.0.0.0"  # noqa: S104 - inside its pod
    assert container_of(overlay, "gateway")["args"] == ["gateway", "--host", everywhere, "--require-keys"]
    pod = the(overlay, "Deployment", "flower")["spec"]["template"]
    flower = settings_of(overlay, pod, containers(pod)[0], secrets, tmp_path).flower
    assert flower.host == everywhere
    assert re.fullmatch(r"fleet:[0-9a-f]{48}", flower.basic_auth)


def test_commands_and_ports_are_the_fleets(overlay: list[Manifest]) -> None:
    """Each container starts a command that there is, and its port is the default of what listens."""
    defaults = Settings()
    commands = get_command(build_app(entry_points(group=COMMAND_GROUP))).commands
    for name, port in (
        ("gateway", defaults.gateway.port),
        ("exporter", defaults.exporter.port),
        ("flower", defaults.flower.port),
        ("worker", defaults.metrics.port),
    ):
        container = container_of(overlay, name)
        command, *options = container["args"]
        assert commands[command].make_context(command, list(options)), name
        assert [one["containerPort"] for one in container["ports"]] == [port], name
    [init] = the(overlay, "Deployment", "worker")["spec"]["template"]["spec"]["initContainers"]
    group, preload = init["args"]
    models = commands[group]
    assert isinstance(models, TyperGroup)
    assert models.commands[preload].make_context(preload, [])


def test_probes_ask_for_pages_that_there_are(overlay: list[Manifest]) -> None:
    """By the name of a port that the container has."""
    pages = {
        "worker": set(worker_pages(WorkerState("m", None))),  # type: ignore[arg-type] - it is not asked
        "gateway": set(OPEN_PATHS),
        "exporter": {"/health"},
        "flower": {"/healthcheck"},
    }
    for name, known in pages.items():
        container = container_of(overlay, name)
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[kind]["httpGet"]
            assert asked["path"] in known, f"{name}: {kind}"
            assert asked["port"] in {one["name"] for one in container["ports"]}, f"{name}: {kind}"
    worker = container_of(overlay, "worker")
    assert (worker["livenessProbe"]["httpGet"]["path"], worker["readinessProbe"]["httpGet"]["path"]) == (
        "/health",
        "/ready",
    )
