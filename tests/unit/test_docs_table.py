"""What the documents have that ``tests/follow_docs.py`` leaves out, or fills in."""

import pytest

from tests.docs_blocks import blocks, commands
from tests.docs_table import FILLED, LEFT_OUT, PAGES


def typed(page: str) -> list[str]:
    """Every command and every Python block of a page."""
    found = []
    for block in blocks(page):
        found += list(commands(block)) if block.language == "sh" else [block.text]
    return found


@pytest.mark.parametrize(("page", "beginning"), [*LEFT_OUT, *FILLED])
def test_the_table_names_nothing_that_no_page_has(page: str, beginning: str) -> None:
    """What is left out for a reason that is gone would hide what took its place."""
    assert any(text.startswith(beginning) for text in typed(page))


def test_most_is_followed() -> None:
    """Each block is read to its end, and more of them is run than not."""
    everything = [(page, text) for page in PAGES for text in typed(page)]
    left_out = [one for one in everything if any(one[0] == p and one[1].startswith(b) for p, b in LEFT_OUT)]
    assert len(everything) > 60
    assert len(left_out) < len(everything) / 2
