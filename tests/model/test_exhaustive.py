"""Two workers and two jobs: every sequence of steps up to a depth, on the real scripts, against the model.

``FLEET_MODEL_DEPTH`` goes deeper than the default, which takes seconds; docs/lease-model.md has what was covered.
"""

import logging
import os
from typing import Final

import pytest
import redis

from tests.model.exploration import Exploration
from tests.model.fleet_model import begin
from tests.model.lease_model import Rules
from tests.model.lease_world import LeaseWorld

log = logging.getLogger(__name__)

DEPTH: Final = int(os.environ.get("FLEET_MODEL_DEPTH", "6"))


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(Rules(lane_of=(1, 1), slots=1), id="one-slot"),
        pytest.param(Rules(lane_of=(1, 1), slots=2), id="two-slots-one-lane"),
        pytest.param(Rules(lane_of=(2, 0), slots=2), id="two-slots-two-lanes"),
        pytest.param(Rules(lane_of=(1, 1), slots=2, in_flows=True), id="two-slots-one-flow"),
    ],
)
def test_no_sequence_of_steps_breaks_an_invariant(client: "redis.Redis", rules: Rules) -> None:
    """Server and model agree after each step, and from each state one worker can bring everything to its end."""
    start = begin(rules, worker_count=2)
    levels = []
    for level in Exploration(LeaseWorld(client, start)).levels(start, DEPTH):
        log.info("%s", level)
        levels.append(level)
    assert levels[-1].depth == DEPTH or levels[-1].is_last
    assert levels[-1].transitions > levels[-1].states > DEPTH
