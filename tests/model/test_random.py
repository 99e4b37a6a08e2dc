"""Three workers and six jobs: long random walks on the real scripts, against the model.

``FLEET_MODEL_EXAMPLES`` walks more often than the default, which takes seconds; docs/lease-model.md has what was
covered. A walk that fails is shrunk to a short one, and printed.
"""

import os
from dataclasses import replace
from typing import ClassVar, Final

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.model.fleet_model import Step, begin, steps
from tests.model.invariants import bring_to_an_end, check_state, check_step, predicted
from tests.model.lease_model import Rules
from tests.model.lease_world import LeaseWorld

EXAMPLES: Final = int(os.environ.get("FLEET_MODEL_EXAMPLES", "30"))
STEPS: Final = 60
SHRINKING_SECONDS: Final = 900
"""Hypothesis makes a failing walk shorter for up to five minutes."""
RULES: Final = Rules(lane_of=(2, 1, 3, 0, 1, 2), slots=4)
WORKERS: Final = 3


class Walk(RuleBasedStateMachine):
    """One walk from an empty queue; at its end, everything is brought to an end."""

    client: ClassVar["redis.Redis"]
    game: ClassVar[Rules] = RULES

    def __init__(self) -> None:
        super().__init__()
        self.fleet = begin(self.game, WORKERS)
        self.world = LeaseWorld(self.client, self.fleet)
        self.world.restore({})
        self._is_sound = True

    @rule(data=st.data())
    def anything(self, data: st.DataObject) -> None:
        """One of the steps that are possible; each kind is as likely as any other."""
        possible = list(steps(self.fleet))
        name = data.draw(st.sampled_from(sorted({step.name for step in possible})))
        self._make(data.draw(st.sampled_from([step for step in possible if step.name == name])))

    @rule(data=st.data())
    @precondition(lambda self: len(self.fleet.submitted) < len(RULES.lane_of))
    def submit(self, data: st.DataObject) -> None:
        """More often than by chance, so that there is something to do."""
        self._make(data.draw(st.sampled_from([step for step in steps(self.fleet) if step.name == "submit"])))

    def _make(self, step: Step) -> None:
        before, self._is_sound = self.fleet, False
        reply = self.world.make(before, step)
        self.fleet = predicted(before, step, reply, self.world.read())
        check_step(before, step, reply, self.fleet)
        self._is_sound = True

    @invariant()
    def nothing_is_lost_or_twice(self) -> None:
        """After every step."""
        check_state(self.fleet, self.world)

    def teardown(self) -> None:
        """One worker is enough for the rest."""
        if self._is_sound:
            bring_to_an_end(self.fleet, self.world)


class WalkInFlows(Walk):
    """The same with jobs of a tenant."""

    game: ClassVar[Rules] = replace(RULES, in_flows=True)


@pytest.mark.timeout(SHRINKING_SECONDS)
@pytest.mark.parametrize("walk", [Walk, WalkInFlows])
def test_no_walk_breaks_an_invariant(client: "redis.Redis", walk: type[Walk]) -> None:
    """Whatever three workers do to six jobs of four lanes."""
    Walk.client = client
    run_state_machine_as_test(
        walk,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
