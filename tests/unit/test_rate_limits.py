"""The arithmetic of a key's rate limits, against the real script."""

from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer import AsyncProducer, InvalidRequest, Producer, keys
from producer.contract import GenerationRequest, SamplingOptions
from producer.gateway.metering import duration
from producer.rate_limits import Bucket, RateLimits, Standing, charge_run, estimated_tokens, read_standing

MINUTE = 60_000_000
"""In microseconds."""


class Clocked:
    """The script with a clock of the test's: its call of TIME is replaced, and nothing else."""

    def __init__(self, client: redis.Redis, limits: RateLimits) -> None:
        text = charge_run("k", limits, 0, 0, correct=False).script.text
        replaced = text.replace("redis.call('TIME')", "{ARGV[6], ARGV[7]}")
        assert replaced != text
        self._script = client.register_script(replaced)
        self._limits = limits
        self.now = 1_700_000_000_000_000
        """Microseconds since the epoch."""

    def charge(self, requests: int, tokens: int, *, correct: bool = False) -> Standing:
        """As the producer does."""
        run = charge_run("k", self._limits, requests, tokens, correct=correct)
        reply = self._script(run.keys, [*run.arguments, *divmod(self.now, 1_000_000)])
        return read_standing(self._limits, reply)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain look at the server."""
    with redis.Redis.from_url(redis_url) as plain:
        yield plain


Step = tuple[int, int, int]
"""Microseconds that pass, then requests and tokens that are asked for."""


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limits=st.builds(RateLimits, st.none() | st.integers(1, 1000), st.none() | st.integers(1, 100_000)),
    steps=st.lists(st.tuples(st.integers(0, MINUTE * 2), st.integers(0, 20), st.integers(0, 50_000)), max_size=20),
)
def test_no_minute_has_more_than_two_minutes_worth_and_no_refusal_is_without_need(
    client: redis.Redis, limits: RateLimits, steps: list[Step]
) -> None:
    """A bucket of a minute's worth that time fills: at most that, and what time gave, is let through in any span."""
    client.flushall()
    clocked = Clocked(client, limits)
    missing = [0.0, 0.0]
    per_minute = (limits.requests_per_minute, limits.tokens_per_minute)
    for passed, *costs in steps:
        clocked.now += passed
        missing = [
            max(0.0, lacks - passed * (limit or 0) / MINUTE) for lacks, limit in zip(missing, per_minute, strict=True)
        ]
        room = [
            None if limit is None else limit - lacks - cost
            for lacks, limit, cost in zip(missing, per_minute, costs, strict=True)
        ]
        if any(left is not None and abs(left) < 1e-3 for left in room):
            continue  # on the edge either answer is right
        standing = clocked.charge(*costs)
        fits = all(left is None or left >= 0 or not cost for left, cost in zip(room, costs, strict=True))
        assert standing.is_charged is fits
        if fits:
            missing = [
                0.0 if limit is None else lacks + cost
                for lacks, cost, limit in zip(missing, costs, per_minute, strict=True)
            ]
        for bucket, lacks, limit in zip((standing.requests, standing.tokens), missing, per_minute, strict=True):
            assert (bucket is None) == (limit is None)
            if bucket is not None:
                assert bucket.missing == pytest.approx(lacks, abs=1e-3)
                assert 0 <= bucket.remaining <= bucket.limit


def test_a_minutes_worth_goes_at_once_and_then_as_fast_as_the_limit(client: redis.Redis) -> None:
    """Sixty a minute: one a second, exactly."""
    clocked = Clocked(client, RateLimits(requests_per_minute=60))
    assert [clocked.charge(1, 0).is_charged for _ in range(61)] == [True] * 60 + [False]
    refused = clocked.charge(1, 0)
    assert (refused.is_charged, refused.fits_in_seconds(1, 0), refused.fits_in_seconds(5, 0)) == (False, 1, 5)
    clocked.now += 999_990
    assert not clocked.charge(1, 0).is_charged
    clocked.now += 10
    assert clocked.charge(1, 0).is_charged
    assert not clocked.charge(1, 0).is_charged


def test_what_does_not_fit_in_one_kind_is_charged_in_neither(client: redis.Redis) -> None:
    """Nor does it make anybody wait longer."""
    clocked = Clocked(client, RateLimits(10, 100))
    assert clocked.charge(1, 80).is_charged
    refused = clocked.charge(1, 30)
    assert (refused.is_charged, refused.fits_in_seconds(1, 30)) == (False, 6)
    standing = clocked.charge(1, 20)
    assert standing == Standing(is_charged=True, requests=Bucket(10, 2.0), tokens=Bucket(100, 100.0))


def test_the_truth_takes_the_place_of_the_estimate_within_bounds(client: redis.Redis) -> None:
    """Never more than a full bucket is given back, and never more than a minute's worth is owed."""
    clocked = Clocked(client, RateLimits(None, 100))
    clocked.charge(1, 90)
    assert clocked.charge(0, -80, correct=True).tokens == Bucket(100, 10.0)
    assert clocked.charge(0, -80, correct=True).tokens == Bucket(100, 0.0)
    owed = clocked.charge(0, 1000, correct=True)
    assert (owed.is_charged, owed.tokens) == (True, Bucket(100, 200.0))
    assert owed.tokens is not None
    assert (owed.tokens.remaining, owed.fits_in_seconds(0, 1)) == (0, 61)
    clocked.now += MINUTE
    assert not clocked.charge(0, 1).is_charged
    clocked.now += MINUTE
    assert clocked.charge(0, 100).is_charged


def test_a_clock_that_is_set_back_gives_nothing_and_takes_nothing(client: redis.Redis) -> None:
    """As another master's may be."""
    clocked = Clocked(client, RateLimits(2, None))
    clocked.charge(1, 0)
    clocked.now -= 3600 * 1_000_000
    assert clocked.charge(1, 0).requests == Bucket(2, 2.0)


def test_a_look_writes_nothing_and_what_is_given_back_is_forgotten(client: redis.Redis) -> None:
    """The hash ends with what is in it."""
    clocked = Clocked(client, RateLimits(10, 100))
    assert clocked.charge(0, 0) == Standing(is_charged=True, requests=Bucket(10, 0.0), tokens=Bucket(100, 0.0))
    assert not client.exists(keys.rate("k"))
    clocked.charge(1, 50)
    assert 30_000 < client.pttl(keys.rate("k")) <= 31_000


async def test_a_changed_limit_counts_from_the_next_request_on(redis_url: str) -> None:
    """By the server's own clock; a key that was revoked meanwhile stays so."""
    async with AsyncProducer(redis_url) as asking:
        with Producer(redis_url) as producer:
            producer.create_key("acme", limits=RateLimits(1, None))
            [key] = producer.api_keys()
            assert key.limits == RateLimits(1, None)
            assert [(await asking.charge_key(key, 1, 5)).is_charged for _ in range(2)] == [True, False]
            producer.limit_key(key.key_id, RateLimits(5, 1000))
            [key] = producer.api_keys()
            standing = await asking.charge_key(key, 1, 5)
            assert standing.is_charged
            assert (await asking.correct_key(key, 10)).tokens == Bucket(1000, pytest.approx(15, abs=5))
            producer.limit_key(key.key_id, RateLimits())
            assert producer.api_keys()[0].limits.are_none
            producer.revoke_key(key.key_id)
            with pytest.raises(InvalidRequest, match="no key"):
                producer.limit_key(key.key_id, RateLimits(1, 1))
            assert producer.api_keys() == []


@pytest.mark.parametrize(
    "limits", [RateLimits(0), RateLimits(requests_per_minute=True), RateLimits(None, -1), RateLimits(10**10)]
)
def test_what_is_no_limit_is_refused(redis_url: str, limits: RateLimits) -> None:
    """With what would be taken."""
    with Producer(redis_url) as producer:
        with pytest.raises(InvalidRequest, match="_per_minute: a whole number from 1 to 1,000,000,000, or None"):
            producer.create_key("acme", limits=limits)
        assert producer.api_keys() == []


def test_a_job_is_estimated_by_its_size_and_by_what_it_may_write() -> None:
    """Tokens where they are known, four bytes each elsewhere."""
    sampling = SamplingOptions(max_tokens=100, n=2)
    assert estimated_tokens(GenerationRequest(model="m", prompt="x" * 9, sampling=sampling)) == 203
    assert estimated_tokens(GenerationRequest(model="m", prompt_token_ids=(1, 2, 3))) == 515


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0ms"), (0.0123, "12ms"), (7.5, "7.5s"), (60, "1m0s"), (119.9999, "2m0s")]
)
def test_a_time_is_said_as_openai_says_it(seconds: float, said: str) -> None:
    """In the headers."""
    assert duration(seconds) == said
