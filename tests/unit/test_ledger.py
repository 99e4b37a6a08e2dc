"""What a worker process holds: one entry per delivery, from its claim to its end."""

import pytest

from tests.deliveries import claimed
from workers.transport.ledger import Held, Ledger

NEVER_SECONDS = 3600.0


@pytest.fixture
def ledger() -> Ledger:
    """An empty one, whose messages may take an hour to the pool."""
    return Ledger(NEVER_SECONDS)


def held(tag: str, job_id: str | None = "j") -> Held:
    """A delivery of this job."""
    return Held(claimed(b"", tag), job_id)


def test_a_delivery_counts_from_its_claim_to_its_end(ledger: Ledger) -> None:
    """Credit is what its length leaves free."""
    one, two = held("1", "a"), held("2", "b")
    ledger.add(one)
    ledger.add(two)
    assert (len(ledger), ledger.entries()) == (2, [one, two])
    assert ledger.drop("1") is one
    assert (len(ledger), ledger.entries()) == (1, [two])


def test_a_delivery_ends_once(ledger: Ledger) -> None:
    """Who comes second learns that it was over: keeper, finisher and hub may all want to end it."""
    ledger.add(held("1"))
    assert ledger.drop("1") is not None
    assert ledger.drop("1") is None
    assert ledger.drop("never claimed") is None


def test_an_entry_is_found_by_tag_and_by_job(ledger: Ledger) -> None:
    """By tag where a delivery is meant, by job where a result or a cancellation comes."""
    entry = held("1", "j")
    ledger.add(entry)
    assert ledger.get("1") is ledger.of_job("j") is entry
    assert ledger.get("2") is ledger.of_job("other") is None


def test_a_message_that_names_no_job_is_held_too(ledger: Ledger) -> None:
    """It takes a slot, and no job's name."""
    ledger.add(held("1", None))
    assert len(ledger) == 1
    assert ledger.of_job("") is None


def test_of_two_deliveries_of_one_job_the_latest_is_the_jobs(ledger: Ledger) -> None:
    """The end of the older one leaves the younger in its place; both take a slot."""
    old, new = held("old"), held("new")
    ledger.add(old)
    ledger.add(new)
    assert len(ledger) == 2
    assert ledger.of_job("j") is new
    ledger.drop("old")
    assert ledger.of_job("j") is new
    ledger.drop("new")
    assert ledger.of_job("j") is None


def test_an_entry_that_is_added_again_under_its_tag_takes_the_others_place(ledger: Ledger) -> None:
    """Entered bare at the claim, and again once it is judged."""
    judged = held("1")
    ledger.add(held("1"))
    ledger.add(judged)
    assert ledger.entries() == [judged]


def test_the_pool_takes_what_is_held(ledger: Ledger) -> None:
    """And learns when the lease of what Celery brings was lost on the way."""
    entry, job = held("1"), object()
    ledger.add(entry)
    assert ledger.enter_pool("1", job) is entry
    assert entry.in_pool is job
    assert ledger.enter_pool("lost", job) is None


def test_a_cancelled_entry_says_so_to_the_pool(ledger: Ledger) -> None:
    """Cancelled before the pool had it, the pool does not start it."""
    entry = held("1")
    ledger.add(entry)
    ledger.cancel(entry)
    taken = ledger.enter_pool("1", object())
    assert taken is not None
    assert taken.is_cancelled


def test_what_is_new_or_in_the_pool_is_worth_renewing() -> None:
    """What Celery keeps elsewhere for longer is not: nobody works on it."""
    ledger = Ledger(0.0)
    running, kept = held("running", "a"), held("kept", "b")
    for entry in (running, kept):
        ledger.add(entry)
    ledger.enter_pool("running", object())
    assert ledger.worth_renewing() == ["running"]


def test_what_is_on_its_way_to_the_pool_is_worth_renewing(ledger: Ledger) -> None:
    """For as long as Celery may take to bring it."""
    on_its_way, late = held("on its way", "a"), held("late", "b")
    late.claimed_at -= NEVER_SECONDS
    for entry in (on_its_way, late):
        ledger.add(entry)
    assert ledger.worth_renewing() == ["on its way"]
