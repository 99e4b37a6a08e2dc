"""What a run showed, for programs (JSON) and for people (Markdown)."""

import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.chaos.evidence import Evidence
from tests.chaos.invariants import Violations
from tests.chaos.lease_view import Waits
from tests.chaos.stand import Plan

SHOWN_VIOLATIONS: Final = 20
PLACES: Final = {"--output", "--logs"}


@dataclass(frozen=True, slots=True)
class Struck:
    """One fault that was done."""

    fault: str
    whom: str
    seconds: float
    """Since the run began."""


@dataclass(frozen=True)
class Report:
    """One run."""

    plan: Plan
    seconds: float
    struck: Sequence[Struck]
    stalled: str | None
    """What did not happen in time; None: the run went to its end."""
    waits: Mapping[str, Waits]
    exit_codes: Sequence[int]
    evidence: Evidence
    violations: Mapping[str, Violations]
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d"))

    @property
    def holds(self) -> bool:
        """Whether every invariant does, and the run went to its end."""
        return self.stalled is None and not any(self.violations.values())

    @property
    def name(self) -> str:
        """For files."""
        plan = self.plan
        prefix = "stock-" if plan.transport == "stock" else ""
        return f"{self.date}-{prefix}{plan.scenario.name}-{plan.scenario.engine}-seed-{plan.seed}"

    def figures(self) -> dict[str, Any]:
        """Everything that is published of the run."""
        evidence, scenario = self.evidence, self.plan.scenario
        return {
            "scenario": scenario.name,
            "transport": self.plan.transport,
            "engine": scenario.engine,
            "seed": self.plan.seed,
            "date": self.date,
            "command": _command(sys.argv[1:]),
            "hardware": f"{os.cpu_count()} {platform.machine()} cores",
            "workers": scenario.workers,
            "server": f"appendfsync {scenario.server}" if scenario.server == "always" else scenario.server,
            "settings": dict(scenario.settings),
            "lease_seconds": scenario.lease_seconds if self.plan.transport == "fleet" else None,
            "stock_visibility_seconds": (
                self.plan.stock_visibility_seconds if self.plan.transport == "stock" else None
            ),
            "seconds": round(self.seconds, 1),
            "faults": dict(Counter(each.fault for each in self.struck)),
            "stalled": self.stalled,
            "jobs_submitted": len(evidence.job_ids),
            "submissions_repeated": sum(each.duplicate for each in evidence.submissions),
            "jobs_answered": len(evidence.job_ids & evidence.stored.keys()),
            **_unanswered(evidence),
            **_answered_twice(evidence),
            "jobs_redelivered": sum(result.attempt > 1 for result in evidence.stored.values()),
            "redelivery_seconds": {fault: waits.summary() for fault, waits in sorted(self.waits.items())},
            "worker_exit_codes": list(self.exit_codes),
            "invariants": {name: len(found) for name, found in self.violations.items()},
            "holds": self.holds,
            "violations": {name: found[:SHOWN_VIOLATIONS] for name, found in self.violations.items() if found},
        }

    def write(self, folder: Path) -> list[Path]:
        """Save it as JSON and as Markdown; the files' names."""
        folder.mkdir(parents=True, exist_ok=True)
        files = {".json": json.dumps(self.figures(), indent=1) + "\n", ".md": self.markdown()}
        for suffix, text in files.items():
            (folder / (self.name + suffix)).write_text(text, encoding="utf-8")
        return [folder / (self.name + suffix) for suffix in files]

    def markdown(self) -> str:
        """For people."""
        figures = self.figures()
        rows = [
            ("verdict", "every invariant holds" if self.holds else "**violated**"),
            *((name, figures[name]) for name in ("command", "date", "hardware", "engine", "transport", "workers")),
            *((name, figures[name]) for name in ("server", "lease_seconds", "seconds")),
            ("faults", _listed(figures["faults"])),
            *((name, value) for name, value in figures.items() if name.startswith(("jobs_", "submissions_"))),
            ("stalled", self.stalled or "no"),
        ]
        table = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in rows)
        waits = "\n".join(f"* after {fault}: {_listed(each)}" for fault, each in figures["redelivery_seconds"].items())
        checks = "\n".join(
            f"* {name.replace('_', ' ')}: {f'{count} violations' if count else 'holds'}"
            for name, count in figures["invariants"].items()
        )
        found = "\n".join(f"* {sentence}" for some in figures["violations"].values() for sentence in some)
        parts = [f"# {self.name}", "| | |\n|---|---|\n" + table]
        parts += [f"## {title}\n\n{text}" for title, text in _sections(waits, checks, found) if text]
        return "\n\n".join(parts) + "\n"


def _command(arguments: Sequence[str]) -> str:
    """The command line, without the places that its files went to."""
    pairs = zip(["", *arguments], arguments, strict=False)
    kept = [argument for before, argument in pairs if not {before, argument} & PLACES]
    return " ".join(["python -m tests.chaos", *kept])


def _unanswered(evidence: Evidence) -> dict[str, int]:
    """Jobs without a result, by where they are; those that a server had said it may lose are counted apart."""
    missing = [each for each in evidence.submissions if each.job_id not in evidence.stored]
    left = {each.job_id for each in missing} & evidence.still_queued
    stated = {each.job_id for each in missing if evidence.may_be_lost(each.enqueued_at)} - left
    lost = {each.job_id for each in missing} - left - stated
    return {"jobs_lost": len(lost), "jobs_left_in_redis": len(left), "jobs_lost_as_stated": len(stated)}


def _answered_twice(evidence: Evidence) -> dict[str, int]:
    twice = [results[0].seen_at for results in evidence.seen.values() if len(results) > 1]
    stated = sum(evidence.may_be_lost(moment) for moment in twice)
    return {"jobs_answered_twice": len(twice) - stated, "jobs_answered_again_as_stated": stated}


def _sections(waits: str, checks: str, found: str) -> list[tuple[str, str]]:
    return [("Seconds until the next claim", waits), ("Invariants", checks), ("Violations", found)]


def _listed(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in figures.items()) or "none"
