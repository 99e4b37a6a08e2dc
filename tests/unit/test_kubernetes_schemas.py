"""Every object that an operator may apply is one that Kubernetes, KEDA and prometheus-operator know."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import pytest

from tests.manifest_schemas import faults
from tests.manifests import Manifest, copied, layered, rendered, the

RELEASES: Final = ("1.29", "1.34", "1.37")
"""The oldest that docs/kubernetes.md names, and what there is now."""
COMBINATIONS: Final = (
    ("overlays/cpu", ()),
    ("overlays/gpu", ()),
    ("overlays/gpu", ("monitoring", "keda")),
    ("overlays/cpu", ("monitoring", "prometheus-adapter", "external-redis", "cache-per-worker")),
    ("secrets", ()),
    ("operator", ()),
)


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[Manifest]]:
    """What each combination renders, by its name."""
    copy = copied(tmp_path_factory.mktemp("manifests"))
    return {" ".join([layer, *parts]): rendered(layered(copy, layer, parts)) for layer, parts in COMBINATIONS}


@pytest.mark.parametrize("release", RELEASES)
def test_every_object_is_valid(applied: Mapping[str, list[Manifest]], release: str) -> None:
    """By the strict schemas of each release: unknown fields are refused too."""
    assert all(len(manifests) >= 1 for manifests in applied.values())
    assert len(applied["overlays/gpu monitoring keda"]) > 20
    found = {
        name: wrong
        for name, manifests in applied.items()
        if (wrong := [fault for manifest in manifests for fault in faults(manifest, release)])
    }
    assert found == {}


def test_no_two_objects_have_one_name(applied: Mapping[str, list[Manifest]]) -> None:
    """The second would replace the first."""
    for manifests in applied.values():
        names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in manifests]
        assert len(names) == len(set(names))


def _misspelled_grace(manifests: list[Manifest]) -> Any:  # noqa: ANN401 - as YAML has it
    worker = deepcopy(the(manifests, "Deployment", "worker"))
    worker["spec"]["template"]["spec"]["terminationGracePeriod"] = 60
    return worker


def _word_for_a_number(manifests: list[Manifest]) -> Any:  # noqa: ANN401 - as YAML has it
    budget = deepcopy(the(manifests, "Deployment", "exporter"))
    budget["spec"]["replicas"] = "one"
    return budget


def _number_for_a_word(manifests: list[Manifest]) -> Any:  # noqa: ANN401 - as YAML has it
    scaled = deepcopy(the(manifests, "ScaledObject", "worker"))
    scaled["spec"]["triggers"][0]["metadata"]["threshold"] = 1
    return scaled


def _behavior_without_a_period(manifests: list[Manifest]) -> Any:  # noqa: ANN401 - as YAML has it
    scaled = deepcopy(the(manifests, "ScaledObject", "worker"))
    del scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["policies"][0][
        "periodSeconds"
    ]
    return scaled


def _monitor_of_nothing(manifests: list[Manifest]) -> Any:  # noqa: ANN401 - as YAML has it
    monitor = deepcopy(the(manifests, "ServiceMonitor", "exporter"))
    monitor["spec"]["endpoint"] = monitor["spec"].pop("endpoints")
    return monitor


@pytest.mark.parametrize(
    "spoil",
    [_misspelled_grace, _word_for_a_number, _number_for_a_word, _behavior_without_a_period, _monitor_of_nothing],
)
def test_a_mistake_is_found(applied: Mapping[str, list[Manifest]], spoil: Any) -> None:  # noqa: ANN401 - a function
    """Each of these is in one field of an object that is right otherwise."""
    assert faults(spoil(applied["overlays/gpu monitoring keda"]), RELEASES[0]) != []


def test_a_copy_needs_no_secret_of_another(tmp_path: Path) -> None:
    """Secrets are rendered from files that were made for them: two copies share no password."""
    first, second = (
        {one["metadata"]["name"]: one["data"] for one in rendered(folder / "secrets") if one["kind"] == "Secret"}
        for folder in (copied(tmp_path / "a"), copied(tmp_path / "b"))
    )
    assert first.keys() == second.keys() > {"redis-users", "worker"}
    assert all(first[name] != second[name] for name in first)
