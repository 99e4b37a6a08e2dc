"""The garbage collector of a worker process."""

import gc
from collections.abc import Iterator

import pytest

from workers.process import GC_THRESHOLDS, collect_garbage_rarely


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leaves the collector as it was."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_what_is_loaded_is_not_looked_at_again() -> None:
    """And what comes is looked at rarely."""
    assert gc.get_freeze_count() == 0
    collect_garbage_rarely()
    assert gc.get_freeze_count() > 1_000
    assert gc.get_threshold() == GC_THRESHOLDS
    assert gc.isenabled()
