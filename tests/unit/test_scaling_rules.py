"""How many workers are wanted: Prometheus' own tool runs the rules, and all who use them say the same."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from tests.manifests import KUBERNETES, ROOT, operator_tool
from workers.exporter.series import BY_MODEL, REASONS

RULES: Final = ROOT / "deploy/prometheus/rules/scaling.yml"
TESTS: Final = ROOT / "deploy/prometheus/tests/scaling_test.yml"
SCALED: Final = KUBERNETES / "components/keda/worker.yml"


def rules() -> list[dict[str, Any]]:
    """Of all groups."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_arithmetic_is_right() -> None:
    """``promtool test rules`` over the cases that the documentation speaks of."""
    done = subprocess.run(
        [operator_tool("promtool"), "test", "rules", TESTS.name],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout + done.stderr


def test_a_wrong_rule_would_be_noticed(tmp_path: Path) -> None:
    """With another target the same cases fail: the tool does compare."""
    for file in (RULES, TESTS):
        (tmp_path / file.parent.name).mkdir()
        (tmp_path / file.parent.name / file.name).write_text(file.read_text().replace("vector(120)", "vector(60)"))
    done = subprocess.run(
        [operator_tool("promtool"), "test", "rules", TESTS.name],
        cwd=tmp_path / "tests",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "got:" in done.stdout + done.stderr


def test_the_query_that_scales_is_the_one_that_is_tested() -> None:
    """Word by word; and it asks for what the rules record."""
    query = yaml.safe_load(SCALED.read_text())["spec"]["triggers"][0]["metadata"]["query"]
    asked = [one["expr"] for test in yaml.safe_load(TESTS.read_text())["tests"] for one in test["promql_expr_test"]]
    assert asked.count(query) == 4
    recorded = {rule["record"] for rule in rules()}
    assert set(re.findall(r"fleet:\w+", query)) <= recorded
    assert "fleet_redis_up" in query


def test_rules_read_series_that_the_exporter_tells() -> None:
    """A series that was renamed would leave every model without a worker."""
    told = {name for name, _, _ in BY_MODEL} | {"fleet_queue_wait_reason"}
    asked = {name for rule in rules() for name in re.findall(r"\bfleet_\w+", str(rule["expr"]))}
    reasons = {reason for rule in rules() for reason in re.findall(r'reason="(\w+)"', str(rule["expr"]))}
    assert asked
    assert asked <= told
    assert reasons
    assert reasons <= {reason.value for reason in REASONS}


def test_rules_are_recorded_before_they_are_read() -> None:
    """A group is evaluated in its order: what is read earlier is a round old. One rule reads its own past."""
    known: set[str] = set()
    for rule in rules():
        known.add(rule["record"])
        assert set(re.findall(r"fleet:\w+", str(rule["expr"]))) <= known


def test_the_operators_object_has_the_same_rules(tmp_path: Path) -> None:
    """Written anew: python scripts/prometheus_rules.py deploy/kubernetes/components/monitoring/rules.yml."""
    written = tmp_path / "rules.yml"
    subprocess.run([sys.executable, ROOT / "scripts/prometheus_rules.py", written], check=True)
    assert (KUBERNETES / "components/monitoring/rules.yml").read_text() == written.read_text()
    groups = [
        group for file in sorted(RULES.parent.glob("*.yml")) for group in yaml.safe_load(file.read_text())["groups"]
    ]
    assert yaml.safe_load(written.read_text())["spec"]["groups"] == groups
