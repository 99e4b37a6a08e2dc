"""Rules, alerts and dashboards: valid, tested, described, and over series that the fleet has."""

import json
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.manifests import ROOT, operator_tool
from tests.prometheuses import DASHBOARDS, RULE_TESTS, RULES, panel_queries, rules

RUNBOOK: Final = ROOT / "docs/runbook.md"
METRICS: Final = ROOT / "docs/metrics.md"
OF_PROMETHEUS_CLIENT: Final = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
PARTS: Final = ("How users notice", "Look at", "Do", "Harmless when")


def test_rules_are_valid_and_do_what_their_tests_say() -> None:
    """By promtool itself."""
    checked = subprocess.run(
        [operator_tool("promtool"), "check", "rules", "--lint-fatal", *sorted(RULES.glob("*.yml"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = subprocess.run(
        [operator_tool("promtool"), "test", "rules", *sorted(RULE_TESTS.glob("*_test.yml"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_tested_to_fire_and_not_to_fire() -> None:
    """Some test sees it fire; another moment or model of the same file does not."""
    texts = [path.read_text() for path in RULE_TESTS.glob("*_test.yml")]
    quiet = r"\{expr: 'ALERTS(\{alertstate=\"firing\"\})?', eval_time: \w+\}"
    for alert in rules("alert"):
        fires = rf'alertname="{alert["alert"]}", alertstate="firing"|alertname: {alert["alert"]}\b'
        assert [text for text in texts if re.search(fires, text) and re.search(quiet, text)], alert["alert"]


def test_every_alert_says_what_it_is_and_has_its_section_in_the_runbook() -> None:
    """And the runbook has no section of an alert that is gone."""
    alerts = rules("alert")
    names = [alert["alert"] for alert in alerts]
    assert len(names) == len(set(names)) > 15
    for alert in alerts:
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert alert["annotations"].keys() == {"summary", "description", "runbook"}
        assert alert["annotations"]["runbook"] == f"docs/runbook.md#{alert['alert'].lower()}"
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL))
    assert sorted(sections) == sorted(names)
    for name, text in sections.items():
        assert [part for part in PARTS if f"**{part}.**" not in text] == [], name


def test_rules_and_dashboards_ask_for_series_that_there_are() -> None:
    """A panel over a series that was renamed would just stay empty, and an alert silent."""
    written = set(re.findall(r"`(fleet_\w+)`", METRICS.read_text()))
    recorded = {rule["record"] for rule in rules("record")}
    asked = [query.expr for query in panel_queries()] + [
        rule["expr"] for kind in ("record", "alert") for rule in rules(kind)
    ]
    assert len(asked) > 80
    for expr in asked:
        without_strings = re.sub(r'"[^"]*"', '""', expr)
        series = {re.sub(r"(_bucket|_sum|_count)$", "", name) for name in re.findall(r"\bfleet_\w+", without_strings)}
        assert series <= written, expr
        assert set(re.findall(r"\bfleet:[\w:]+", without_strings)) <= recorded, expr
        assert set(re.findall(r"\bprocess_\w+", without_strings)) <= OF_PROMETHEUS_CLIENT, expr


@pytest.mark.parametrize("path", sorted(DASHBOARDS.glob("*.json")), ids=lambda path: path.stem)
def test_a_dashboard_can_be_shown_for_one_model(path: Path) -> None:
    """It has the variable, and panels that do not overlap and have names of their own."""
    board = json.loads(path.read_text())
    assert [one["name"] for one in board["templating"]["list"]] == ["model"]
    assert board["uid"].startswith("inference-fleet")
    panels = board["panels"]
    assert len({panel["title"] for panel in panels}) == len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (place["x"] + column, place["y"] + row)
        for place in (panel["gridPos"] for panel in panels)
        for column in range(place["w"])
        for row in range(place["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24
    by_model = [target["expr"] for panel in panels for target in panel["targets"] if "$model" in target["expr"]]
    assert len(by_model) > 9


def test_rules_are_plain_documents() -> None:
    """Groups and nothing else, so that they can be a PrometheusRule's ``spec`` as they are."""
    for path in RULES.glob("*.yml"):
        assert list(yaml.safe_load(path.read_text())) == ["groups"], path
