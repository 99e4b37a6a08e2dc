"""The figures in the documentation are those of the reports that are kept beside the suite."""

import json
from pathlib import Path

import pytest

from tests.chaos.table import RESULTS, published_table

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"


def test_the_document_shows_the_published_reports_and_nothing_else() -> None:
    """To publish a run: keep its report, and put what ``python -m tests.chaos.table`` prints into the document."""
    assert published_table() in DOCUMENT.read_text()


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_published_run_of_the_fleet_holds(path: Path) -> None:
    """A run that did not is a bug to mend, not a figure to publish; stock Celery's are there to show the difference."""
    report = json.loads(path.read_text())
    assert report["holds"] or report["transport"] == "stock"
