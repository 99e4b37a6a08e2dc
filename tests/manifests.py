"""The Kubernetes manifests as kubectl renders them, and the tools of operators that tests run."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[1]
KUBERNETES: Final = ROOT / "deploy/kubernetes"
PODS: Final = {"Deployment": ("spec", "template"), "StatefulSet": ("spec", "template"), "Pod": ()}
"""Where each kind has its pod, or what one is made from."""

Manifest = Mapping[str, Any]


def operator_tool(name: str) -> str:
    """The path of a tool; without it tests are skipped, and fail where CI says that it is there."""
    found = shutil.which(name)
    if found:
        return found
    reason = f"{name} is not on the PATH: scripts/operator_tools.sh FOLDER puts it into one"
    if os.environ.get("REQUIRE_OPERATOR_TOOLS"):
        pytest.fail(reason)
    pytest.skip(reason)


def rendered(folder: Path) -> list[Manifest]:
    """All objects of a kustomization."""
    command = [operator_tool("kubectl"), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def layered(copy: Path, layer: str, components: Sequence[str] = (), more: Mapping[str, Any] | None = None) -> Path:
    """In a copy of the manifests, a kustomization over one of its folders, as an operator would write it."""
    folder = copy / "layers" / "-".join([*layer.split("/"), *components, *(more or {})])
    folder.mkdir(parents=True)
    content = {
        "resources": [f"../../{layer}"],
        "components": [f"../../components/{name}" for name in components],
        **(more or {}),
    }
    (folder / "kustomization.yml").write_text(yaml.safe_dump(content))
    return folder


def copied(tmp_path: Path) -> Path:
    """A copy of the manifests with Secrets as they are made, to build layers in."""
    copy = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, copy, ignore=shutil.ignore_patterns("values"))
    make_secrets = ROOT / "deploy/compose/make_secrets.sh"
    subprocess.run([make_secrets, copy / "secrets/values"], check=True, capture_output=True)
    return copy


def the(manifests: Iterable[Manifest], kind: str, name: str) -> Any:  # noqa: ANN401 - as YAML has it
    """The one object of this kind and name; of one whose name ends in a hash, what is before it."""
    found = [one for one in manifests if one["kind"] == kind and is_named(one["metadata"]["name"], name)]
    assert len(found) == 1, f"{kind} {name}: {len(found)}"
    return found[0]


def is_named(full: str, name: str) -> bool:
    """Whether this is the name, with or without a generator's hash."""
    return full == name or (full.startswith(f"{name}-") and len(full) == len(name) + 11)


def pods(manifests: Iterable[Manifest]) -> Iterator[tuple[str, Any]]:
    """Each pod, or what it is made from, by the name of its object."""
    for manifest in manifests:
        if manifest["kind"] in PODS:
            pod: Any = manifest
            for part in PODS[manifest["kind"]]:
                pod = pod[part]
            yield manifest["metadata"]["name"], pod


def containers(pod: Manifest) -> list[Any]:
    """All of a pod, those that run before the others too."""
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
