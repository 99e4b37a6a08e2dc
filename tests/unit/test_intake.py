"""From free slots to messages: credit, acknowledgements that must not be lost, and every fate but delivery."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from producer import keys
from tests.deliveries import HANDOVER_SECONDS, SUBMISSION, job_message
from tests.intake_desk import SLOTS, Desk, FailingStore
from tests.leasing import MODEL, FlowJob, LeaseQueue, answer, run_down
from workers.transport.appetite import Appetite
from workers.transport.arrivals import Arrival, Fate
from workers.transport.leases import Leases
from workers.transport.ledger import Ledger


@pytest.fixture
def desk(redis_url: str) -> Iterator[Desk]:
    """Nothing is held."""
    with LeaseQueue.at(redis_url) as queue:
        store = FailingStore(queue.client, MODEL, queue.policy, consumer="one", worker="one@host")
        yield Desk(queue, Leases(store, Ledger(HANDOVER_SECONDS)))


def jobs(arrivals: Sequence[Arrival]) -> list[str | None]:
    """Which arrived."""
    return [arrival.held.job_id for arrival in arrivals]


# Credit.


def test_no_more_is_claimed_than_fits(desk: Desk) -> None:
    """What is held counts, wherever it is in the process; a slot that is free again is filled again."""
    desk.push("a", "b", "c", "d", "e", "f")
    intake = desk.intake(slots=4)
    first = intake.next_batch().arrivals
    assert (jobs(first), intake.credit) == (["a", "b", "c", "d"], 0)
    assert intake.next_batch().arrivals == ()
    intake.acknowledge(first[1].held.tag)
    assert intake.credit == 1
    assert jobs(intake.next_batch().arrivals) == ["e"]


def test_one_claim_takes_no_more_than_a_batch(desk: Desk) -> None:
    """And says that there is more to claim."""
    desk.push("a", "b", "c")
    intake = desk.intake(batch_max_jobs=2)
    batch = intake.next_batch()
    assert (jobs(batch.arrivals), batch.is_last) == (["a", "b"], False)
    batch = intake.next_batch()
    assert (jobs(batch.arrivals), batch.is_last, batch.may_block) == (["c"], True, True)


def test_an_empty_queue_is_waited_for(desk: Desk) -> None:
    """At its doorbell."""
    batch = desk.intake().next_batch()
    assert (batch.arrivals, batch.is_last, batch.may_block) == ((), True, True)


def test_a_full_process_does_not_wait_at_the_doorbell(desk: Desk) -> None:
    """It would take the token that another one needs."""
    desk.push("a")
    intake = desk.intake(slots=1)
    intake.next_batch()
    batch = intake.next_batch()
    assert (batch.is_last, batch.may_block) == (True, False)


def test_a_process_that_is_told_to_stop_claims_nothing(desk: Desk) -> None:
    """From that moment on, however much waits."""
    desk.push("a")
    intake = desk.intake()
    intake.is_claiming = False
    assert intake.credit == 0
    assert intake.next_batch().arrivals == ()
    assert len(desk.queue.waiting()) == 1


def test_while_suspects_are_run_nothing_else_is_claimed_or_waited_for(desk: Desk) -> None:
    """The doorbell is for those that run the others' jobs."""
    desk.push("suspect")
    run_down(desk.queue, deaths=2)
    intake = desk.intake()
    batch = intake.next_batch()
    assert jobs(batch.arrivals) == ["suspect"]
    assert (batch.is_last, batch.may_block) == (True, False)
    desk.push("other")
    batch = intake.next_batch()
    assert (jobs(batch.arrivals), batch.is_last, batch.may_block) == ([], True, False)


def test_a_claim_tells_the_clock_the_servers_time(desk: Desk) -> None:
    """Deadlines are judged by that one."""
    intake = desk.intake()
    intake.next_batch()
    seconds, microseconds = desk.queue.client.time()
    assert intake.clock.now() == pytest.approx(seconds + microseconds / 1e6, abs=1.0)


def test_what_does_not_fit_into_the_cache_is_known_to_the_pool(redis_url: str) -> None:
    """It fills an engine otherwise whose memory is full, than one whose seats are."""
    with LeaseQueue.at(redis_url) as queue:
        store = FailingStore(queue.client, MODEL, queue.policy, consumer="one", worker="one@host")
        appetite = Appetite(kv_cache_tokens=1000)
        desk = Desk(queue, Leases(store, Ledger(HANDOVER_SECONDS), appetite))
        queue.place(*(FlowJob(job_message(name), prompt_tokens=300, output_tokens=100) for name in "ab"))
        intake = desk.intake()
        assert jobs(intake.next_batch().arrivals) == ["a", "b"]
        assert not appetite.is_memory_full
        queue.place(FlowJob(job_message("c"), prompt_tokens=300, output_tokens=100))
        assert intake.next_batch().arrivals == ()
        assert appetite.is_memory_full


# Acknowledgements.


def test_an_acknowledgement_leaves_with_the_next_claim(desk: Desk) -> None:
    """Its slot is free at once."""
    intake = desk.intake()
    [held] = desk.hold("a")
    intake.acknowledge(held.tag)
    assert (intake.credit, desk.is_leased(held)) == (SLOTS, True)
    intake.next_batch()
    assert not desk.is_leased(held)
    assert desk.queue.leftovers() == []


def test_an_acknowledgement_leaves_though_nothing_fits(desk: Desk) -> None:
    """Or though nothing is claimed any more: a drain ends with nothing under lease."""
    intake = desk.intake()
    done, _ = desk.hold("done", "running")
    intake.acknowledge(done.tag)
    intake.is_claiming = False
    intake.next_batch()
    assert not desk.is_leased(done)


def test_what_a_result_has_acknowledged_is_not_acknowledged_again(desk: Desk) -> None:
    """Celery's own acknowledgement comes after it, and finds nothing to do."""
    intake = desk.intake()
    [held] = desk.hold("a")
    desk.ledger.drop(held.tag)
    intake.acknowledge(held.tag)
    intake.next_batch()
    assert desk.is_leased(held)


def test_a_claim_that_fails_keeps_its_acknowledgements(desk: Desk) -> None:
    """They go out with the next one that works: a done job would be run again otherwise."""
    intake = desk.intake()
    one, two = desk.hold("a", "b")
    intake.acknowledge(one.tag)
    desk.failing.claims_to_fail = 2
    with pytest.raises(redis.exceptions.ConnectionError):
        intake.next_batch()
    intake.acknowledge(two.tag)
    with pytest.raises(redis.exceptions.ConnectionError):
        intake.flush()
    intake.flush()
    assert desk.queue.leftovers() == []


def test_claims_whose_reply_was_lost_go_back_uncounted(desk: Desk) -> None:
    """Nobody here knows of them: without this they would wait for their leases to end, as deaths of their worker."""
    intake = desk.intake()
    [done] = desk.hold("done")
    intake.acknowledge(done.tag)
    desk.queue.push(job_message("a"), job_message("b"))
    desk.failing.replies_to_lose = 1
    with pytest.raises(redis.exceptions.ConnectionError):
        intake.next_batch()
    arrivals = intake.next_batch().arrivals
    assert [(arrival.held.job_id, arrival.held.message.delivery) for arrival in arrivals] == [("a", 1), ("b", 1)]
    for arrival in arrivals:
        intake.acknowledge(arrival.held.tag)
    intake.flush()
    assert desk.queue.leftovers() == []


def test_acknowledging_twice_changes_nothing(desk: Desk) -> None:
    """Where the first claim's reply was lost."""
    intake = desk.intake()
    done, running = desk.hold("done", "running")
    intake.acknowledge(done.tag)
    desk.failing.replies_to_lose = 1
    with pytest.raises(redis.exceptions.ConnectionError):
        intake.flush()
    intake.flush()
    assert (desk.is_leased(done), desk.is_leased(running)) == (False, True)


def test_what_is_refused_goes_back_uncounted(desk: Desk) -> None:
    """Another worker gets it, as if it had never been here."""
    intake = desk.intake()
    [held] = desk.hold("a")
    intake.hand_back(held.tag)
    intake.hand_back(held.tag)
    assert len(desk.ledger) == 0
    [again] = desk.queue.store("two").claim(1, held=0).messages
    assert again.delivery == 1


# Fates.


def test_messages_are_entered_before_they_are_delivered(desk: Desk) -> None:
    """With what is known of them."""
    desk.push("a")
    [arrival] = desk.intake().next_batch().arrivals
    assert desk.ledger.entries() == [arrival.held]
    assert (arrival.held.job_id, arrival.held.submission_token) == ("a", SUBMISSION)


def test_a_failure_between_claim_and_delivery_leaves_the_messages_held(desk: Desk) -> None:
    """So that they can be handed back: nobody else knows of them."""
    desk.push("a", "b")
    desk.failing.screenings_to_fail = 1
    with pytest.raises(redis.exceptions.ConnectionError):
        desk.intake().next_batch()
    assert [held.job_id for held in desk.ledger.entries()] == ["a", "b"]


def test_a_job_that_has_a_result_is_acknowledged_and_not_run(desk: Desk) -> None:
    """Its worker died between result and acknowledgement."""
    desk.push("done", "open")
    desk.queue.client.set(keys.result("done"), answer("fine"))
    intake = desk.intake()
    batch = intake.next_batch()
    assert jobs(batch.arrivals) == ["open"]
    intake.next_batch()
    assert desk.queue.result("done") == answer("fine")
    assert desk.queue.client.hlen(desk.queue.keys.leased) == 1


def test_a_cancelled_submission_arrives_to_be_revoked(desk: Desk) -> None:
    """A later one under the same id arrives to be run."""
    desk.queue.client.hset(desk.queue.keys.cancels, "j", SUBMISSION)
    desk.queue.push(job_message("j"), job_message("j", token="later"))  # noqa: S106 - no password
    fates = [arrival.fate for arrival in desk.intake().next_batch().arrivals]
    assert fates == [Fate.REVOKE, Fate.DELIVER]


def test_what_is_no_message_goes_to_the_dead_letters(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """The others of its batch arrive; the log says how to look at it, not what is in it."""
    desk.queue.push(job_message("a"), b"{secret", job_message("b"))
    batch = desk.intake().next_batch()
    assert jobs(batch.arrivals) == ["a", "b"]
    letters: dict[Any, Any] = desk.queue.client.hgetall(keys.DEAD_LETTERS)
    [(name, letter)] = letters.items()
    assert json.loads(letter)["message"] == "{secret"
    assert f"fleet dead show {name.decode()}" in caplog.text
    assert "secret" not in caplog.text
    assert len(desk.ledger) == 2
    assert desk.queue.client.zcard(desk.queue.keys.leases) == 2


def test_a_message_for_later_takes_no_slot(desk: Desk) -> None:
    """It waits in Redis, under no lease, and comes when it is due: uncounted, and as it was."""
    moment = datetime.now(UTC)
    desk.queue.push(job_message("later", eta=(moment + timedelta(hours=1)).isoformat()))
    intake = desk.intake()
    assert intake.next_batch().arrivals == ()
    assert intake.credit == SLOTS
    assert desk.queue.client.zcard(desk.queue.keys.leases) == 0
    delayed: list[Any] = desk.queue.client.zrange(desk.queue.keys.delayed, 0, -1, withscores=True)
    [(_, due_at)] = delayed
    assert due_at == pytest.approx(moment.timestamp() + 3600, abs=10)
    desk.queue.come_due()
    assert len(desk.queue.store("two").claim(1, held=0).messages) == 1


# Delivery.


def test_arrivals_are_handed_over_in_their_order(desk: Desk) -> None:
    """One by one."""
    desk.push("a", "b", "c")
    intake, given = desk.intake(), list[Arrival]()
    intake.deliver(intake.next_batch().arrivals, given.append)
    assert jobs(given) == ["a", "b", "c"]


def test_when_a_delivery_fails_those_behind_it_go_back_at_once(desk: Desk) -> None:
    """To the place that they came from; the one that failed stays held until it is stranded."""
    desk.push("a", "b", "c", "d")
    intake, given = desk.intake(), list[str | None]()

    def give(arrival: Arrival) -> None:
        given.append(arrival.held.job_id)
        if arrival.held.job_id == "b":
            raise OSError("the connection closed")

    with pytest.raises(OSError, match="the connection closed"):
        intake.deliver(intake.next_batch().arrivals, give)
    assert given == ["a", "b"]
    assert [held.job_id for held in desk.ledger.entries()] == ["a", "b"]
    waiting = [json.loads(message)["headers"]["id"] for message in desk.queue.waiting()]
    assert sorted(waiting) == ["c", "d"]
