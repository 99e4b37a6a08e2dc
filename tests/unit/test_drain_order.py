"""Who is next: tenants by their share, near deadlines, prompts that begin alike, lanes by their turns."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from producer import keys
from producer.contract import Priority
from tests.leasing import MODEL, FlowJob, LeaseQueue, end, raws, tags
from workers.transport.drain_policy import LANE_TURNS, DrainPolicy, Room, Turns
from workers.transport.lease_store import Finish, LeasePolicy, Release

INTERACTIVE, NORMAL, BATCH, BACKGROUND = Priority
NOW = 1_800_000_000.0
"""Any moment for jobs that arrive one after the other."""


@pytest.fixture
def queue(redis_url: str) -> Iterator[LeaseQueue]:
    """An empty queue."""
    with LeaseQueue.at(redis_url) as queue:
        yield queue


def claimed(queue: LeaseQueue, credit: int, room: Room | None = None, held: int = 1) -> list[str]:
    """What one claim brings."""
    claim = queue.store().claim(credit, held, room=room or Room())
    return [raw.decode() for raw in raws(claim.messages)]


def several(count: int, tenant: str, **fields: object) -> list[FlowJob]:
    """So many jobs of one tenant, each called by its name and a number."""
    return [FlowJob(f"{tenant}{number}".encode(), tenant, **fields) for number in range(count)]  # type: ignore[arg-type]  # the test's own fields


def test_jobs_of_one_tenant_are_claimed_in_the_order_of_their_arrival(queue: LeaseQueue) -> None:
    """As in a lane's list."""
    queue.place(*several(5, "a"))
    assert claimed(queue, 3) == ["a0", "a1", "a2"]
    assert claimed(queue, 3) == ["a3", "a4"]


def test_a_tenant_that_comes_late_is_served_beside_one_with_a_long_queue(queue: LeaseQueue) -> None:
    """Its first job does not wait for the thousand that came before it."""
    queue.place(*several(1000, "a"))
    claimed(queue, 64)
    queue.place(*several(10, "b"))
    assert Counter(name[0] for name in claimed(queue, 20)) == {"a": 10, "b": 10}


def test_tenants_share_tokens_and_not_jobs(queue: LeaseQueue) -> None:
    """One job of 900 tokens counts as much as nine of 100."""
    queue.place(*several(20, "a", prompt_tokens=810), *several(90, "b"))
    first = Counter(name[0] for name in claimed(queue, 40))
    assert first == {"a": 4, "b": 36}


def test_a_tenant_of_weight_three_gets_three_times_the_tokens(queue: LeaseQueue) -> None:
    """While both wait."""
    queue.client.hset(keys.TENANTS, "a", "3 ")
    queue.client.hset(keys.TENANTS, "b", "1 ")
    queue.place(*several(60, "a"), *several(60, "b"))
    assert Counter(name[0] for name in claimed(queue, 40)) == {"a": 30, "b": 10}


def test_what_a_job_really_took_is_what_its_tenant_is_charged(queue: LeaseQueue) -> None:
    """One that asks for many tokens and writes few is not held to its estimate."""
    queue.place(*several(40, "a", output_tokens=390), *several(40, "b", output_tokens=390))
    store = queue.store()
    for message in store.claim(20, 0).messages:
        name = message.raw.decode()
        # Tenant a's answers are short, b's as long as was expected.
        [_] = store.finish([end_with(message.tag, name, tokens=100 if name[0] == "a" else 400)])
    following = Counter(name[0] for name in claimed(queue, 30))
    assert following["a"] - following["b"] == pytest.approx(10 * 300 / 400, abs=1), "ten jobs took 300 tokens less"


def end_with(tag: str, job: str, tokens: int) -> Finish:
    """The end of a job that took so many tokens."""
    return replace(end(tag, job), tokens=tokens)


def test_a_tenant_that_was_away_saves_nothing_up(queue: LeaseQueue) -> None:
    """It begins where the others are: what it did not use is gone."""
    queue.place(*several(100, "a"), *several(1, "b"))
    claimed(queue, 50)
    queue.place(*several(100, "b"))
    assert Counter(name[0] for name in claimed(queue, 20))["b"] <= 11


def test_leaving_and_coming_back_does_not_win_a_tenant_anything(queue: LeaseQueue) -> None:
    """It still owes what it was given while it waits for nothing: a tenant of one job at a time gets its share."""
    queue.place(*several(100, "a", prompt_tokens=10))
    served: Counter[str] = Counter()
    for number in range(20):
        queue.place(FlowJob(b"b%d" % number, "b", prompt_tokens=910))
        served.update(name[0] for name in claimed(queue, 2))
    assert served["b"] < served["a"]


def test_jobs_without_a_tenant_share_as_one(queue: LeaseQueue) -> None:
    """Those in the lane's list, which any Celery producer pushes, and those in flows together, in their order."""
    queue.push(*(b"stock%d" % number for number in range(40)))
    queue.place(*several(40, "a"), FlowJob(b"nobody"))
    names = claimed(queue, 20, Room(output_tokens=90))
    assert Counter(name[0] for name in names)["a"] == pytest.approx(10, abs=1)
    assert "nobody" not in names, "the list's jobs came before it"


def test_a_claim_of_stock_messages_alone_leaves_no_accounts(queue: LeaseQueue) -> None:
    """Nobody is there to share with."""
    queue.push(b"one", b"two")
    assert claimed(queue, 2) == ["one", "two"]
    assert not queue.client.keys("fleet:shares:*")


def test_a_near_deadline_goes_first_in_its_lane(queue: LeaseQueue) -> None:
    """Before its own tenant's earlier jobs and those of others; a far one waits its turn."""
    now = time.time()
    queue.place(*several(5, "a"), FlowJob(b"soon", "b", deadline=now + 20), FlowJob(b"later", "a", deadline=now + 3600))
    assert claimed(queue, 1) == ["soon"]
    assert claimed(queue, 9) == ["a0", "a1", "a2", "a3", "a4", "later"]


def test_a_near_deadline_does_not_leave_its_lane(queue: LeaseQueue) -> None:
    """What is more urgent goes first."""
    queue.place(FlowJob(b"soon", priority=BATCH, deadline=time.time() + 5), FlowJob(b"urgent", priority=INTERACTIVE))
    assert claimed(queue, 2) == ["urgent", "soon"]


def test_deadlines_do_not_get_a_tenant_more_than_its_share_for_long(queue: LeaseQueue) -> None:
    """Once it is ahead by the lead that it may have, it waits like others."""
    policy = LeasePolicy(drain=DrainPolicy(lead_tokens=1000))
    soon = time.time() + 20
    queue.place(*several(40, "a", deadline=soon), *several(40, "b"))
    claim = queue.with_policy(policy).store().claim(40, 0)
    served = Counter(raw.decode()[0] for raw in raws(claim.messages))
    assert 20 <= served["a"] <= 26


def test_jobs_of_a_prefix_that_was_run_lately_go_first(queue: LeaseQueue) -> None:
    """The engine has its blocks."""
    for number in range(12):
        queue.place(FlowJob(b"%d" % number, prefix="abc"[number % 3], arrived_at=NOW + number))
    store = queue.store()
    [first] = store.claim(1, 0).messages
    recent = Room(recent_prefixes=(first.place.prefix,))
    following = raws(store.claim(3, 1, room=recent).messages)
    assert following == [b"3", b"6", b"9"]
    assert raws(store.claim(2, 1, room=recent).messages) == [b"1", b"2"]


def test_a_prefix_overtakes_only_what_came_at_most_a_window_before(queue: LeaseQueue) -> None:
    """The oldest job is not passed for ever."""
    policy = LeasePolicy(drain=DrainPolicy(prefix_window_seconds=5))
    queue.place(
        FlowJob(b"old", prefix="aa", arrived_at=NOW),
        FlowJob(b"within", prefix="bb", arrived_at=NOW + 4),
        FlowJob(b"beyond", prefix="bb", arrived_at=NOW + 6),
    )
    store = queue.with_policy(policy).store()
    recent = Room(recent_prefixes=("|bb",))
    assert raws(store.claim(1, 1, room=recent).messages) == [b"within"]
    assert raws(store.claim(1, 1, room=recent).messages) == [b"old"]
    assert raws(store.claim(1, 1, room=recent).messages) == [b"beyond"]


def test_a_prefix_is_its_tenants_own(queue: LeaseQueue) -> None:
    """Nobody gets ahead by another's."""
    queue.place(FlowJob(b"a", "a", prefix="aa"), FlowJob(b"b", "b", prefix="bb"), FlowJob(b"c", "c", prefix="bb"))
    assert claimed(queue, 1, Room(recent_prefixes=("c|bb",))) == ["c"]


def test_a_tenant_at_its_limit_waits_until_one_of_its_jobs_is_done(queue: LeaseQueue) -> None:
    """Whatever else there is goes on; what is done without an answer counts as well."""
    queue.client.hset(keys.TENANTS, "a", "1 2")
    queue.place(*several(5, "a"), *several(2, "b"))
    store = queue.store()
    first = store.claim(10, 0).messages
    assert sorted(raws(first)) == [b"a0", b"a1", b"b0", b"b1"]
    assert store.claim(10, 4).messages == ()
    of_a = [message for message in first if message.raw.startswith(b"a")]
    store.finish([end(of_a[0].tag, "a0")])
    assert raws(store.claim(10, 3).messages) == [b"a2"]
    store.release([of_a[1].tag], Release.HAND_BACK)
    assert raws(store.claim(10, 3).messages) == [b"a1"], "what came back has its old place"


def test_a_limit_that_is_lifted_frees_what_it_held(queue: LeaseQueue) -> None:
    """With the next claims, though nothing of the tenant ended."""
    queue.client.hset(keys.TENANTS, "a", "1 1")
    queue.place(*several(3, "a"))
    assert claimed(queue, 3) == ["a0"]
    queue.client.hset(keys.TENANTS, "a", "1 ")
    assert claimed(queue, 3) == ["a1", "a2"]


def test_nothing_is_left_of_flows_when_all_is_done(queue: LeaseQueue) -> None:
    """No accounts, no indexes, no counters."""
    queue.client.hset(keys.TENANTS, "a", "2 3")
    soon = time.time() + 10
    queue.place(*several(4, "a", prefix="ab"), *several(4, "b", deadline=soon), *several(4, "c", priority=BATCH))
    queue.push(b"stock", b"other", priority=BACKGROUND)
    store = queue.store()
    while messages := store.claim(3, 0).messages:
        store.finish([end(message.tag, message.raw.decode()) for message in messages])
    assert queue.leftovers() == []
    assert [queue.client.llen(name) for name in keys.all_lanes(MODEL)] == [0] * 8


def test_waiting_jobs_are_the_lengths_of_the_lanes_lists(queue: LeaseQueue) -> None:
    """Whatever they wait in; Flower adds these lists up."""
    queue.place(*several(3, "a"), *several(2, "b", priority=BACKGROUND))
    queue.push(b"stock")
    assert sum(queue.client.llen(name) for name in keys.all_lanes(MODEL)) == 6
    claimed(queue, 2)
    assert sum(queue.client.llen(name) for name in keys.all_lanes(MODEL)) == 4


def test_a_lane_gets_its_share_while_a_more_urgent_one_never_ends(queue: LeaseQueue) -> None:
    """One of nine claims for normal, one of 33 for batch, one of 129 for background, as nearly as turns allow."""
    for lane in Priority:
        queue.push(*(lane.encode() for _ in range(600)), priority=lane)
    names = Counter(name for _ in range(150) for name in claimed(queue, 4))
    lower = {lane: names[lane] / names[INTERACTIVE] for lane in (NORMAL, BATCH, BACKGROUND)}
    assert {lane: round(ratio / LANE_TURNS[lane].share, 1) for lane, ratio in lower.items()} == pytest.approx(
        {NORMAL: 1.0, BATCH: 1.2, BACKGROUND: 1.2}, abs=0.3
    )


def test_a_background_job_is_served_within_its_bound_under_endless_interactive_load(queue: LeaseQueue) -> None:
    """The bound is a number of claimed jobs: one in its share, whatever comes in meanwhile."""
    queue.push(b"background", priority=BACKGROUND)
    queue.push(*[b"urgent"] * 4, priority=INTERACTIVE)
    bound = round(1 / LANE_TURNS[BACKGROUND].share) + 1
    served: list[str] = []
    while len(served) < bound:
        queue.push(b"urgent", priority=INTERACTIVE)
        served += claimed(queue, 1)
    assert served == [*["urgent"] * (bound - 1), "background"]


def test_a_lane_that_waited_longer_than_its_patience_is_next(queue: LeaseQueue) -> None:
    """However slow the more urgent lane is served; counted from when it began to wait beside that one."""
    turns = {lane: Turns(share=0.0, patience_seconds=0.05) for lane in Priority}
    store = queue.with_policy(LeasePolicy(drain=DrainPolicy(lane_turns=turns))).store()
    queue.push(b"late", priority=BACKGROUND)
    queue.push(*[b"urgent"] * 200, priority=INTERACTIVE)
    assert raws(store.claim(2, 1).messages) == [b"urgent", b"urgent"]
    deadline = time.monotonic() + 5
    while raws(store.claim(1, 1).messages) != [b"late"]:
        queue.push(b"urgent", priority=INTERACTIVE)
        assert time.monotonic() < deadline
    assert queue.client.llen(keys.lane(MODEL, INTERACTIVE)) > 0


def test_reserved_slots_are_for_the_most_urgent_lane(queue: LeaseQueue) -> None:
    """Others leave them free; it may take all."""
    queue.push(*[b"batch"] * 9, priority=BATCH)
    assert claimed(queue, 4, Room(reserved_slots=2)) == ["batch", "batch"]
    assert claimed(queue, 2, Room(reserved_slots=2)) == []
    queue.push(*[b"urgent"] * 9, priority=INTERACTIVE)
    assert claimed(queue, 4, Room(reserved_slots=2)) == ["urgent"] * 4


def test_what_is_urgent_rings_for_those_who_have_room_for_it_alone(queue: LeaseQueue) -> None:
    """What is left behind rings the bell of its lane, and no other."""
    queue.push(*[b"batch"] * 3, priority=BATCH)
    claimed(queue, 1)
    bells = (queue.keys.urgent_doorbell, queue.keys.doorbell)
    assert [queue.client.llen(bell) for bell in bells] == [0, 1]
    queue.push(*[b"urgent"] * 3, priority=INTERACTIVE)
    claimed(queue, 1)
    assert [queue.client.llen(bell) for bell in bells] == [1, 1]


def test_no_more_is_claimed_than_there_is_memory_for(queue: LeaseQueue) -> None:
    """The next job stays for somebody who has room, and is not passed by a smaller one."""
    queue.place(*several(5, "a", prompt_tokens=900, output_tokens=100), FlowJob(b"small", "a"))
    claim = queue.store().claim(10, 1, room=Room(tokens=2500))
    assert raws(claim.messages) == [b"a0", b"a1"]
    assert [message.tokens for message in claim.messages] == [1000, 1000]
    assert claim.is_full
    assert queue.client.llen(queue.keys.doorbell) == 1, "a neighbour is told"
    assert claimed(queue, 10, Room(tokens=0)) == []


def test_a_job_that_is_larger_than_the_room_runs_alone(queue: LeaseQueue) -> None:
    """By a worker that holds nothing: nobody else will have more room for it."""
    queue.place(*several(2, "a", prompt_tokens=9000))
    assert claimed(queue, 10, Room(tokens=2500), held=0) == ["a0"]
    assert claimed(queue, 10, Room(tokens=0), held=1) == []


def test_the_size_of_a_stock_message_is_estimated(queue: LeaseQueue) -> None:
    """By its bytes and the max_tokens in it, however deep they are escaped."""
    body = rb'{"body": "[[{\"prompt\": \"%s\", \"sampling\": {\"max_tokens\": 300}}]]"}' % (b"x" * 4000)
    queue.push(body)
    [message] = queue.store().claim(1, 1, room=Room(tokens=10_000)).messages
    assert 1000 + 300 - 250 <= message.tokens <= 1000 + 300 + 50


def test_a_long_queue_costs_a_claim_no_more_commands(queue: LeaseQueue) -> None:
    """However many jobs, tenants and prefixes wait."""
    spent = []
    for count in (40, 4000):
        jobs = [
            FlowJob(b"%d" % number, f"t{number % 20}", prefix=f"{number % 7}", arrived_at=NOW + number)
            for number in range(count)
        ]
        queue.place(*jobs)
        queue.client.config_resetstat()
        claimed(queue, 8)
        stats = queue.client.info("commandstats")
        spent.append(sum(stats[name]["calls"] for name in stats if name != "cmdstat_info"))
        queue.client.flushdb()
    assert spent[0] == spent[1]


def test_accounts_hold_what_came_back_as_well(queue: LeaseQueue) -> None:
    """A lease that ran out frees its tenant's place, and the job keeps its number."""
    queue.client.hset(keys.TENANTS, "a", "1 1")
    queue.place(*several(2, "a"))
    store = queue.store()
    [first] = store.claim(5, 0).messages
    queue.expire(*tags([first]))
    store.reap()
    assert queue.client.hgetall(queue.keys.running) == {}
    [again] = store.claim(5, 0).messages
    assert (again.raw, again.delivery) == (b"a0", 2)


def test_what_was_taken_before_a_claim_failed_is_under_a_lease(queue: LeaseQueue) -> None:
    """Its consumer heard an error, and finds it by the lease: nothing is lost to a stranger's key."""
    queue.place(*several(2, "a"))
    queue.push(b"urgent", priority=INTERACTIVE)
    queue.client.set(f"fleet:shares:3:{MODEL}", "not a sorted set")
    store = queue.store()
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        store.claim(3, 0)
    assert len(store.own_tags()) + sum(queue.client.llen(name) for name in keys.all_lanes(MODEL)) == 3
    assert len(store.own_tags()) >= 1


def test_a_consumer_of_other_lanes_leaves_interactive_jobs_and_their_doorbell_alone(queue: LeaseQueue) -> None:
    """Those in the lane's list and those in flows; the token is for who takes them."""
    queue.push(b"urgent", priority=INTERACTIVE)
    queue.place(FlowJob(b"urgent too", "a", priority=INTERACTIVE), *several(2, "a"))
    queue.push(b"normal")
    assert sorted(claimed(queue, 10, Room(takes_urgent=False))) == ["a0", "a1", "normal"]
    assert queue.client.llen(keys.QueueKeys(MODEL).urgent_doorbell) == 0
    assert sorted(claimed(queue, 10)) == ["urgent", "urgent too"]
