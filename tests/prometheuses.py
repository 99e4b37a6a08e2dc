"""A real Prometheus and its promtool for tests, where they are installed; what rules and dashboards ask of it."""

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.manifests import ROOT, operator_tool
from tests.running import page_of
from tests.waiting import eventually, free_port

RULES: Final = ROOT / "deploy/prometheus/rules"
RULE_TESTS: Final = ROOT / "deploy/prometheus/tests"
DASHBOARDS: Final = ROOT / "deploy/compose/grafana/dashboards"


@dataclass(frozen=True)
class PanelQuery:
    """One of a dashboard's queries."""

    board: str
    panel: str
    expr: str
    may_be_empty: bool
    """The panel's description begins with when it is."""


def asked(expr: str, interval: str = "1m") -> str:
    """A dashboard's query as Grafana asks it, of every model."""
    return expr.replace("$model", ".*").replace("$__rate_interval", interval)


def panel_queries() -> list[PanelQuery]:
    """Of all dashboards."""
    return [
        PanelQuery(
            path.stem,
            panel["title"],
            asked(target["expr"]),
            may_be_empty=panel.get("description", "").startswith("Empty "),
        )
        for path in sorted(DASHBOARDS.glob("*.json"))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
    ]


def rules(kind: str, files: str = "*.yml") -> list[dict[str, Any]]:
    """Every rule that has this key, ``record`` or ``alert``, in these files."""
    groups = [group for path in sorted(RULES.glob(files)) for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


@dataclass(frozen=True)
class RunningPrometheus:
    """One that answers."""

    address: str

    def ask(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - JSON
        """What its HTTP API says."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.address}/api/v1/{path}?{query}", timeout=10) as answer:  # noqa: S310
            return json.load(answer)["data"]

    def samples(self, expr: str) -> list[dict[str, Any]]:
        """An instant query's."""
        found: list[dict[str, Any]] = self.ask("query", query=expr)["result"]
        return found

    def alert_states(self, name: str) -> list[str]:
        """``pending`` or ``firing``, of those of this name that are either."""
        return [one["state"] for one in self.ask("alerts")["alerts"] if one["labels"]["alertname"] == name]


def quick_rules(folder: Path, seconds: int = 1, wait: str = "2s") -> Path:
    """The very rules, but looked at every so many seconds, and alerts fire after ``wait``: a copy of their folder."""
    folder.mkdir()
    for path in RULES.glob("*.yml"):
        content = yaml.safe_load(path.read_text())
        for group in content["groups"]:
            group["interval"] = f"{seconds}s"
            for rule in group["rules"]:
                if "for" in rule:
                    rule["for"] = wait
        (folder / path.name).write_text(yaml.safe_dump(content))
    return folder


@contextmanager
def running_prometheus(
    folder: Path, jobs: Mapping[str, Sequence[str]], rules_folder: Path, seconds: int = 1
) -> Iterator[RunningPrometheus]:
    """One that scrapes these addresses, by the names of their jobs; it has ended afterwards."""
    config = {
        "global": {"scrape_interval": f"{seconds}s", "scrape_timeout": f"{seconds}s"},
        "rule_files": [f"{rules_folder}/*.yml"],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": list(targets)}]} for job, targets in jobs.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port, log = free_port(), folder / "prometheus.log"
    command = [
        operator_tool("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    address = f"http://127.0.0.1:{port}"
    try:
        eventually(
            lambda: process.poll() is not None or page_of(f"{address}/-/ready")[0] == 200, what="Prometheus is ready"
        )
        assert process.poll() is None, log.read_text()[-2000:]
        yield RunningPrometheus(address)
    finally:
        process.terminate()
        process.wait(30)
