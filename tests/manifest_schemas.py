"""Schemas of Kubernetes objects, without a network: its own from kubernetes-validate, others by hand.

Of objects that operators bring along, the fields that we use are written down here after their published definitions:
KEDA 2.17, prometheus-operator 0.80. A field that is not listed is refused, so a new one has to be looked up first.
"""

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.manifests import Manifest

TEXT: Final = {"type": "string", "minLength": 1}
DURATION: Final = {"type": "string", "pattern": r"^[0-9]+(ms|s|m|h)$"}
COUNT: Final = {"type": "integer", "minimum": 0}
TEXTS: Final = {"type": "object", "additionalProperties": {"type": "string"}}


def closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def of_kind(version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """An object of Kubernetes around a spec."""
    metadata = closed({"name": TEXT, "namespace": TEXT, "labels": TEXTS, "annotations": TEXTS}, "name", "namespace")
    parts = {"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": metadata, "spec": spec}
    return closed(parts, *parts)


ENDPOINT: Final = closed({"port": TEXT, "path": TEXT, "interval": DURATION, "scrapeTimeout": DURATION}, "port")
SELECTOR: Final = closed({"matchLabels": TEXTS}, "matchLabels")
RULE: Final = closed(
    {
        "record": TEXT,
        "alert": TEXT,
        "expr": TEXT,
        "for": DURATION,
        "keep_firing_for": DURATION,
        "labels": TEXTS,
        "annotations": TEXTS,
    },
    "expr",
)
GROUP: Final = closed({"name": TEXT, "interval": DURATION, "rules": {"type": "array", "items": RULE}}, "name", "rules")
PROMETHEUS_TRIGGER: Final = closed(
    {
        "type": {"const": "prometheus"},
        "name": TEXT,
        "metricType": {"enum": ["AverageValue", "Value"]},
        # Every value is text, numbers and truth too.
        "metadata": closed(
            {
                "serverAddress": {"type": "string", "pattern": "^https?://"},
                "query": TEXT,
                "threshold": {"type": "string", "pattern": r"^[0-9.]+$"},
                "activationThreshold": {"type": "string", "pattern": r"^[0-9.]+$"},
                "ignoreNullValues": {"enum": ["true", "false"]},
            },
            "serverAddress",
            "query",
            "threshold",
        ),
    },
    "type",
    "metadata",
)
FALLBACK: Final = closed(
    {
        "failureThreshold": COUNT,
        "replicas": COUNT,
        "behavior": {"enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]},
    },
    "failureThreshold",
    "replicas",
)
# What is below "behavior" goes to an autoscaler as it is, and is validated as one's.
AUTOSCALER: Final = closed({"name": TEXT, "behavior": {"type": "object"}})
SCALED_OBJECT: Final = closed(
    {
        "scaleTargetRef": closed({"apiVersion": TEXT, "kind": TEXT, "name": TEXT}, "name"),
        "minReplicaCount": COUNT,
        "maxReplicaCount": COUNT,
        "pollingInterval": COUNT,
        "cooldownPeriod": COUNT,
        "initialCooldownPeriod": COUNT,
        "fallback": FALLBACK,
        "advanced": closed({"horizontalPodAutoscalerConfig": AUTOSCALER}),
        "triggers": {"type": "array", "minItems": 1, "items": PROMETHEUS_TRIGGER},
    },
    "scaleTargetRef",
    "triggers",
)
MONITORING: Final = "monitoring.coreos.com/v1"
OF_OPERATORS: Final = {
    "ScaledObject": of_kind("keda.sh/v1alpha1", "ScaledObject", SCALED_OBJECT),
    "PodMonitor": of_kind(
        MONITORING,
        "PodMonitor",
        closed({"selector": SELECTOR, "podMetricsEndpoints": {"type": "array", "items": ENDPOINT}}, "selector"),
    ),
    "ServiceMonitor": of_kind(
        MONITORING,
        "ServiceMonitor",
        closed({"selector": SELECTOR, "endpoints": {"type": "array", "items": ENDPOINT}}, "selector", "endpoints"),
    ),
    "PrometheusRule": of_kind(
        MONITORING, "PrometheusRule", closed({"groups": {"type": "array", "items": GROUP}}, "groups")
    ),
}


@cache
def kubernetes_validator(release: str, api_version: str, kind: str) -> Draft202012Validator:
    """Of one of Kubernetes' own kinds in a release such as ``1.34``; fields that it does not know are refused."""
    folder = files("kubernetes_validate").joinpath("kubernetes-json-schema", f"v{release}.0-local-strict")
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = json.loads(folder.joinpath(f"{kind.lower()}-{group}.json").read_text())
    return Draft202012Validator(schema, registry=_definitions(release))


@cache
def _definitions(release: str) -> "Registry[Any]":
    folder = files("kubernetes_validate").joinpath("kubernetes-json-schema", f"v{release}.0-local-strict")
    definitions = json.loads(folder.joinpath("_definitions.json").read_text())
    return Resource.from_contents(definitions) @ Registry()


def faults(manifest: Manifest, release: str) -> list[str]:
    """What is wrong with an object, by its place; nothing: it would be accepted."""
    own = OF_OPERATORS.get(manifest["kind"])
    validator = (
        Draft202012Validator(own) if own else kubernetes_validator(release, manifest["apiVersion"], manifest["kind"])
    )
    name = f"{manifest['kind']} {manifest['metadata']['name']}"
    found = [f"{name}: {'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(manifest)]
    behavior = manifest.get("spec", {}).get("advanced", {}).get("horizontalPodAutoscalerConfig", {}).get("behavior")
    return [*found, *(faults(autoscaler_with(behavior), release) if behavior else ())]


def autoscaler_with(behavior: Any) -> Manifest:  # noqa: ANN401 - as YAML has it
    """An autoscaler of Kubernetes' own that behaves so."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "behavior"},
        "spec": {"scaleTargetRef": target, "maxReplicas": 1, "behavior": behavior},
    }
