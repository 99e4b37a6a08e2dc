"""What the manifests say of each other, of the code's times and of the documentation is true."""

import re
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client import CollectorRegistry

from config.loading import load_settings
from tests.manifests import KUBERNETES, ROOT, Manifest, copied, is_named, layered, pods, rendered, the
from workers.observe.metrics import WorkerMetrics
from workers.supervisor import STOP_GRACE_SECONDS

DOCUMENT: Final = ROOT / "docs/kubernetes.md"
NAME: Final = "app.kubernetes.io/name"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the manifests, to build layers in."""
    return copied(tmp_path_factory.mktemp("manifests"))


@pytest.fixture(scope="module", params=["overlays/cpu", "overlays/gpu"])
def scaled(request: pytest.FixtureRequest, copy: Path) -> list[Manifest]:
    """Each overlay, scraped and scaled by work."""
    return rendered(layered(copy, request.param, ("monitoring", "keda")))


def matching(manifests: list[Manifest], selector: dict[str, Any]) -> set[str]:
    """The pods that a selector means."""
    found = set()
    for name, pod in pods(manifests):
        labels = pod["metadata"]["labels"]
        by_label = selector.get("matchLabels", {}).items() <= labels.items()
        if by_label and all(labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", ())):
            found.add(name)
    return found


def worker_settings(manifests: list[Manifest]) -> Any:  # noqa: ANN401 - Settings
    """What the worker's ConfigMap amounts to."""
    return load_settings(
        config_file=None, environ=the(manifests, "ConfigMap", "worker-settings")["data"], overrides={}
    ).settings


def probe_seconds(probe: dict[str, Any]) -> int:
    """How long it may fail."""
    return int(probe["periodSeconds"] * probe["failureThreshold"])


def test_a_worker_has_time_to_drain_to_load_and_to_be_started_again(scaled: list[Manifest]) -> None:
    """Else Kubernetes would kill what the fleet has in hand."""
    settings = worker_settings(scaled)
    spec = the(scaled, "Deployment", "worker")["spec"]
    pod = spec["template"]["spec"]
    worker = pod["containers"][0]
    assert pod["terminationGracePeriodSeconds"] > settings.worker.drain_timeout_seconds + STOP_GRACE_SECONDS
    assert "lifecycle" not in worker
    assert probe_seconds(worker["livenessProbe"]) >= 2 * settings.worker.restart_backoff_max_seconds
    assert probe_seconds(worker["startupProbe"]) >= settings.engine.start_timeout_seconds
    assert spec["progressDeadlineSeconds"] > settings.engine.start_timeout_seconds
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["x-worker"]
    assert compose["stop_grace_period"] == f"{pod['terminationGracePeriodSeconds']}s"


def test_a_gateway_has_time_to_be_forgotten_and_to_end(scaled: list[Manifest]) -> None:
    """What preStop takes counts against the time that it has."""
    pod = the(scaled, "Deployment", "gateway")["spec"]["template"]["spec"]
    sleep, seconds = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    gateway = worker_settings(scaled).gateway
    assert pod["terminationGracePeriodSeconds"] > int(seconds) + gateway.shutdown_timeout_seconds
    # A fleet without workers must be able to take jobs, or nothing would wake it.
    assert pod["containers"][0]["readinessProbe"]["httpGet"]["path"] == "/health"


def test_what_flower_knows_outlives_its_pod(scaled: list[Manifest]) -> None:
    """On a volume that its group may write to and no two pods share; a save has time to end."""
    spec = the(scaled, "Deployment", "flower")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    state = Path(next(one["value"] for one in container["env"] if one["name"] == "FLEET_FLOWER__STATE_FILE"))
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    [volume] = [volumes[one["name"]] for one in container["volumeMounts"] if Path(one["mountPath"]) in state.parents]
    claim = the(scaled, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])["spec"]
    assert claim["accessModes"] == ["ReadWriteOnce"]
    assert claim["resources"]["requests"]["storage"] == "1Gi"
    assert state.parent not in {Path(one["mountPath"]) for one in container["volumeMounts"]}
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]
    assert pod["terminationGracePeriodSeconds"] >= 30


def test_selectors_mean_the_pods_that_they_are_for(scaled: list[Manifest]) -> None:
    """Deployments, Services, budgets, monitors: each the one of its own name."""
    seen = set()
    for manifest in scaled:
        kind, name, spec = manifest["kind"], manifest["metadata"]["name"], manifest.get("spec", {})
        if kind == "Service":
            assert matching(scaled, {"matchLabels": spec["selector"]}) == {name}
        elif kind in {"Deployment", "StatefulSet", "PodDisruptionBudget", "PodMonitor"}:
            assert matching(scaled, spec["selector"]) == {name}, f"{kind} {name}"
        elif kind == "ServiceMonitor":
            assert spec["selector"]["matchLabels"].items() <= the(scaled, "Service", name)["metadata"]["labels"].items()
        elif kind in {"HorizontalPodAutoscaler", "ScaledObject"}:
            target = the(scaled, "Deployment", spec["scaleTargetRef"]["name"])
            assert "replicas" not in target["spec"], "the next apply would overrule who scales it"
        seen.add(kind)
    assert {"Service", "PodMonitor", "ServiceMonitor", "ScaledObject", "HorizontalPodAutoscaler"} <= seen


def test_services_and_monitors_name_ports_that_there_are(scaled: list[Manifest]) -> None:
    """By their names, which pods give."""
    named = {
        name: {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
        for name, pod in pods(scaled)
    }
    for service in (one for one in scaled if one["kind"] == "Service"):
        for port in service["spec"]["ports"]:
            assert named[service["metadata"]["name"]][port["targetPort"]] == port["port"]
    endpoints = the(scaled, "PodMonitor", "worker")["spec"]["podMetricsEndpoints"]
    assert [one["port"] for one in endpoints] == list(named["worker"])
    endpoints = the(scaled, "ServiceMonitor", "exporter")["spec"]["endpoints"]
    assert [one["port"] for one in endpoints] == [
        one["name"] for one in the(scaled, "Service", "exporter")["spec"]["ports"]
    ]


def test_nobody_reaches_what_he_need_not(copy: Path, scaled: list[Manifest]) -> None:
    """Redis from the fleet's own pods; metrics from Prometheus; the gateway from anywhere; Flower from nowhere."""
    everything = [*scaled, *rendered(copy / "operator")]
    policies = {one["metadata"]["name"]: one["spec"] for one in scaled if one["kind"] == "NetworkPolicy"}
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    [of_redis] = policies["redis"]["ingress"]
    assert matching(everything, policies["redis"]["podSelector"]) == {"redis"}
    [clients] = of_redis["from"]
    assert list(clients) == ["podSelector"]
    assert matching(everything, clients["podSelector"]) == {"gateway", "worker", "exporter", "flower", "operator"}
    assert policies["redis"].get("egress", []) == []
    assert matching(everything, policies["metrics"]["podSelector"]) == {"worker", "exporter"}
    [of_metrics] = policies["metrics"]["ingress"]
    assert of_metrics["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert policies["gateway"]["ingress"] == [{"ports": [{"port": 8000}]}]
    reachable = {
        name
        for policy in policies.values()
        if policy.get("ingress")
        for name in matching(everything, policy["podSelector"])
    }
    assert reachable == {"redis", "worker", "exporter", "gateway"}


def test_a_gpu_is_asked_for_where_there_is_one(copy: Path) -> None:
    """Requested and limited alike, as Kubernetes wants it; shared memory is memory."""
    for overlay, gpus in (("gpu", 1), ("cpu", None)):
        manifests = rendered(copy / "overlays" / overlay)
        pod = the(manifests, "Deployment", "worker")["spec"]["template"]["spec"]
        resources = pod["containers"][0]["resources"]
        assert resources["limits"].get("nvidia.com/gpu") == resources["requests"].get("nvidia.com/gpu") == gpus
        assert worker_settings(manifests).worker.gpus == ("all" if gpus else "none")
        shared = next(volume for volume in pod["volumes"] if volume["name"] == "shm")
        assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}


def test_redis_is_set_up_as_in_compose() -> None:
    """One file, copied, because kustomize reads nothing outside its folder."""
    assert (KUBERNETES / "base/redis.conf").read_text() == (ROOT / "deploy/compose/redis.conf").read_text()


def test_workers_are_scaled_from_none_and_back_without_haste(scaled: list[Manifest]) -> None:
    """No answer is no zero; a worker that is taken away has drained before the next one is."""
    spec = the(scaled, "ScaledObject", "worker")["spec"]
    [trigger] = spec["triggers"]
    pod = the(scaled, "Deployment", "worker")["spec"]["template"]["spec"]
    assert (spec["minReplicaCount"], trigger["metadata"]["threshold"]) == (0, "1")
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert trigger["metricType"] == "AverageValue"
    down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    [policy] = down["policies"]
    assert (policy["type"], policy["value"]) == ("Pods", 1)
    assert policy["periodSeconds"] > pod["terminationGracePeriodSeconds"]


def test_what_is_scaled_is_the_model_of_the_layer_below(copy: Path) -> None:
    """It is named once, in the worker's settings, its namespace too."""
    literals = [{"name": "worker-settings", "behavior": "merge", "literals": ["FLEET_MODEL=acme/big"]}]
    layered(copy, "overlays/gpu", (), {"configMapGenerator": literals, "namespace": "acme"})
    manifests = rendered(
        layered(copy, "layers/overlays-gpu-configMapGenerator-namespace", ("monitoring", "keda"), {"namespace": "acme"})
    )
    query = the(manifests, "ScaledObject", "worker")["spec"]["triggers"][0]["metadata"]["query"]
    assert 'fleet:desired_workers{namespace="acme",model="acme/big"}' in query
    assert 'fleet_redis_up{namespace="acme"}' in query
    assert {one["metadata"].get("namespace", "acme") for one in manifests} == {"acme"}


def test_another_redis_takes_the_place_of_the_fleets(copy: Path) -> None:
    """Nothing of its own stays, and pods may leave for the other."""
    manifests = rendered(layered(copy, "overlays/cpu", ("external-redis",)))
    assert [one["kind"] for one in manifests if is_named(one["metadata"]["name"], "redis")] == []
    assert [one["kind"] for one in manifests if is_named(one["metadata"]["name"], "redis-config")] == []
    assert {"ports": [{"port": 6379}]} in the(manifests, "NetworkPolicy", "inward")["spec"]["egress"]


def test_addresses_of_another_redis_give_its_users(tmp_path: Path) -> None:
    """Whoever writes an address with TLS, or of sentinels, gets the hash of its password in the list of users."""
    values = copied(tmp_path) / "secrets/values"
    addresses = {"worker": "rediss://worker:first@redis.example:6379/0", "gateway": "sentinel://gateway:second@a,b/m/0"}
    for user, address in addresses.items():
        (values / f"redis_url_{user}").unlink()
        (values / f"redis_url_{user}").write_text(f"{address}\n")
    subprocess.run([ROOT / "deploy/compose/make_secrets.sh", values], check=True, capture_output=True)
    users = (values / "redis_users").read_text()
    for user, password in (("worker", "first"), ("gateway", "second")):
        assert f"user {user} on #{sha256(password.encode()).hexdigest()} " in users
        assert (values / f"redis_url_{user}").read_text().strip() == addresses[user]


def test_a_cache_of_its_own_for_each_worker(copy: Path) -> None:
    """The shared claim is gone, the rest of the pod stays."""
    manifests = rendered(layered(copy, "overlays/gpu", ("cache-per-worker",)))
    claims = [one["metadata"]["name"] for one in manifests if one["kind"] == "PersistentVolumeClaim"]
    assert claims == ["flower"]
    volumes = the(manifests, "Deployment", "worker")["spec"]["template"]["spec"]["volumes"]
    [models] = [volume for volume in volumes if volume["name"] == "models"]
    assert models.keys() == {"name", "ephemeral"}
    assert len(volumes) == 6


def test_the_adapter_hands_on_a_series_that_workers_export(copy: Path) -> None:
    """Under the name by which the autoscaler asks for it."""
    registry = CollectorRegistry()
    WorkerMetrics("m", registry)
    [rule] = yaml.safe_load((KUBERNETES / "components/prometheus-adapter/adapter.yml").read_text())["rules"]["custom"]
    manifests = rendered(layered(copy, "overlays/gpu", ("prometheus-adapter",)))
    [metric] = the(manifests, "HorizontalPodAutoscaler", "worker")["spec"]["metrics"]
    asked = metric["pods"]["metric"]["name"]
    assert asked == rule["name"]["as"] == rule["seriesQuery"].partition("{")[0]
    assert asked in {family.name for family in registry.collect()}


def test_the_document_names_what_there_is(copy: Path) -> None:
    """Its kustomizations are rendered, and the folders and files of its commands exist."""
    text = DOCUMENT.read_text()
    blocks = re.findall(r"```yaml\n# (\S+)/kustomization\.yml\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in blocks] == ["my-fleet", "my-fleet-scaled"]
    for name, content in blocks:
        folder = copy.parent / name
        folder.mkdir()
        (folder / "kustomization.yml").write_text(content.replace("deploy/kubernetes", "kubernetes"))
    manifests = rendered(copy.parent / "my-fleet-scaled")
    model = the(manifests, "ConfigMap", "worker-settings")["data"]["FLEET_MODEL"]
    assert f'model="{model}"' in the(manifests, "ScaledObject", "worker")["spec"]["triggers"][0]["metadata"]["query"]
    images = {container["image"] for _, pod in pods(manifests) for container in pod["spec"]["containers"]}
    assert {image.partition("/")[0] for image in images} == {"registry.example", "valkey"}
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    paths = set(re.findall(r"(?:^|\s)((?:deploy|scripts|docs)/[\w./-]+)", commands))
    assert len(paths) >= 4
    assert [path for path in paths if "/values" not in path and not (ROOT / path).exists()] == []
