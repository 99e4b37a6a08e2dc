"""Writes the rule files of deploy/prometheus/rules as one object for prometheus-operator, comments and all.

python scripts/prometheus_rules.py deploy/kubernetes/components/monitoring/rules.yml
"""

import sys
from pathlib import Path
from typing import Final

RULES: Final = Path(__file__).parents[1] / "deploy/prometheus/rules"
HEAD: Final = """\
# Written by scripts/prometheus_rules.py from deploy/prometheus/rules: change those.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: inference-fleet
  namespace: inference-fleet
spec:
  groups:
"""


def prometheus_rule() -> str:
    """The object, with the groups of every file in the order of their names."""
    return HEAD + "".join(_groups(file.read_text(encoding="utf-8")) for file in sorted(RULES.glob("*.yml")))


def _groups(text: str) -> str:
    before, found, groups = text.partition("groups:\n")
    if not found:
        raise ValueError("a rule file has its groups under the line 'groups:'")
    lines = [*(f"  {line}" for line in before.splitlines()), *groups.splitlines()]
    return "".join(f"  {line}".rstrip() + "\n" for line in lines)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(prometheus_rule(), encoding="utf-8")
