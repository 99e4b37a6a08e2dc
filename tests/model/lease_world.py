"""The real scripts on a real server: makes the model's steps, and reads what the server then holds."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

import redis

from producer import keys
from producer.contract import Priority
from producer.script import FLOWS_SCRIPT
from tests.leasing import LONG_AGO, MODEL, answer
from tests.model.fleet_model import Fleet, Reply, Step
from tests.model.lease_model import FAILURE, SUCCESS, Claimed, Lease, Queue, Record, Result
from workers.transport.drain_policy import DrainPolicy, Turns
from workers.transport.lease_store import DeadLetter, Finish, LeasePolicy, LeaseStore, Release

FOR_EVER_SECONDS: Final = 1e6
"""No lease and no delay ends by itself within a run."""
NAMES: Final = keys.QueueKeys(MODEL)
LANES: Final = tuple(keys.lane(MODEL, priority) for priority in Priority)
RESULT_SECONDS: Final = 10**6
ASK: Final = """
local reply = {}
for _, command in ipairs(cjson.decode(ARGV[1])) do
  reply[#reply + 1] = redis.call(unpack(command))
end
return reply
"""
"""One call instead of many: a long run asks millions of times."""
PLACE: Final = FLOWS_SCRIPT + "place_job(ARGV[1], parse_place(ARGV[2]), ARGV[3])"
TENANT: Final = "acme"
STEPS: Final = sorted(keys.PRIORITY_STEPS.values())
NO_TURNS: Final = DrainPolicy(lane_turns=dict.fromkeys(Priority, Turns(share=0.0, patience_seconds=1e9)))
"""Lanes by their urgency alone: turns are a matter of time, and have tests of their own."""
RESTORE: Final = """
redis.call('FLUSHDB')
for index, name in ipairs(KEYS) do
  redis.call('RESTORE', name, 0, ARGV[index])
end
"""

Snapshot = dict[str, bytes]
"""Key to its value as the server dumps it."""


class LeaseWorld:
    """One server, one queue; ``tags`` has the tag of each claim so far."""

    def __init__(self, client: "redis.Redis", fleet: Fleet) -> None:
        self.client: Any = client
        self.tags: dict[int, str] = {}
        self._rules = fleet.rules
        self._jobs = range(len(fleet.rules.lane_of))
        self._results = [keys.result(str(job)) for job in self._jobs]
        self._job_records = [keys.job_record(str(job)) for job in self._jobs]
        self._policy = LeasePolicy(FOR_EVER_SECONDS, fleet.rules.max_deliveries, drain=NO_TURNS)
        self._stores: dict[str, LeaseStore] = {}
        self._digests = {client.register_script("return redis.sha1hex(ARGV[1])")([], [job]): job for job in self._jobs}
        self._ask = client.register_script(ASK)
        self._restore = client.register_script(RESTORE)
        self._place = client.register_script(PLACE)
        self._questions = json.dumps(self._read_commands())
        side_keys = (NAMES.leases, NAMES.leased, NAMES.redelivery, NAMES.suspects, NAMES.delayed, NAMES.isolation)
        dead = (keys.DEAD_LETTERS, keys.DEAD_LETTER_INDEX, keys.DEAD_LETTER_MODELS)
        doorbells = (NAMES.doorbell, NAMES.urgent_doorbell)
        of_jobs = (*self._results, *self._job_records)
        self._names = [*LANES, *_flow_keys(), *side_keys, NAMES.claim_counter, *doorbells, *dead, *of_jobs]
        self._dumps = json.dumps([["DUMP", name] for name in self._names])

    def make(self, fleet: Fleet, step: Step) -> Reply:
        """Let a step happen to the server that holds the state ``fleet``."""
        match step.name:
            case "submit":
                if self._rules.in_flows:
                    self._place([], [MODEL, self._place_of(step.number), step.number])
                else:
                    self.client.lpush(LANES[self._rules.lane_of[step.number]], str(step.number))
            case "lease ends":
                self.client.zadd(NAMES.leases, {self.tags[step.number]: LONG_AGO}, xx=True)
            case "comes due":
                member = f"{self._place_of(step.number)}\n{step.number}"
                self.client.zadd(NAMES.delayed, {member: LONG_AGO}, xx=True)
            case "isolation ends":
                self.client.delete(NAMES.isolation)
            case "reap":
                return tuple(self._number(tag) for tag in self._store("reaper").reap(step.number))
            case "worker dies":
                pass
            case _:
                return self._make_worker(fleet, step)
        return None

    def _make_worker(self, fleet: Fleet, step: Step) -> Reply:
        worker = fleet.workers[step.worker]
        store = self._store(worker.consumer)
        held = [self.tags[attempt.number] for attempt in worker.attempts]
        match step.name:
            case "claim":
                return self._claim(store, step.number, len(held))
            case "renew":
                return frozenset(self._number(tag) for tag in store.renew(held).lost_tags)
            case "engine dies":
                return store.release(held, Release.SUSPECT, reason="it died")
            case "acknowledge":
                return store.claim(0, len(held) - 1, [self.tags[step.number]]).messages or None
            case "finish" | "finish unheard":
                [status] = store.finish([self._end(fleet, step)])
                return status.value
            case _:
                delay_seconds = 0.0 if step.name == "hand_back" else FOR_EVER_SECONDS
                return store.release([self.tags[step.number]], Release(step.name), delay_seconds=delay_seconds)

    def _claim(self, store: LeaseStore, credit: int, held: int) -> Reply:
        claim = store.claim(credit, held)
        messages = []
        for message in claim.messages:
            number = self._number(message.tag)
            self.tags[number] = message.tag
            messages.append(Claimed(number, int(message.raw), message.delivery, message.retries))
        return claim.is_isolating, tuple(messages)

    def _end(self, fleet: Fleet, step: Step) -> Finish:
        attempt = fleet.attempt(step)
        is_poisoned = attempt.delivery > self._rules.max_deliveries
        result = answer(str(step.number), FAILURE if is_poisoned else SUCCESS)
        letter = DeadLetter(str(attempt.job), "{}") if is_poisoned else None
        return Finish(self.tags[step.number], self._results[attempt.job], result, RESULT_SECONDS, letter)

    def _store(self, consumer: str) -> LeaseStore:
        if consumer not in self._stores:
            self._stores[consumer] = LeaseStore(self.client, MODEL, self._policy, consumer=consumer, worker=consumer)
        return self._stores[consumer]

    def _place_of(self, job: int) -> str:
        step = STEPS[self._rules.lane_of[job]]
        return f"{step}|{TENANT}|{job + 1:022d}|40|8||" if self._rules.in_flows else str(step)

    @staticmethod
    def _number(tag: str) -> int:
        return int(tag.rpartition(".")[2])

    def _read_commands(self) -> list[list[Any]]:
        return [
            *(["LRANGE", name, 0, -1] for name in LANES),
            *(["ZRANGE", NAMES.order(step), 0, -1] for step in STEPS),
            *(["HGETALL", name] for name in (NAMES.waiting, NAMES.charged, NAMES.running)),
            ["LRANGE", NAMES.suspects, 0, -1],
            *(["ZRANGE", name, 0, -1, "WITHSCORES"] for name in (NAMES.delayed, NAMES.leases)),
            *(["HGETALL", name] for name in (NAMES.leased, NAMES.redelivery)),
            *(["GET", name] for name in (NAMES.isolation, NAMES.claim_counter)),
            ["HKEYS", keys.DEAD_LETTERS],
            ["ZRANGE", keys.DEAD_LETTER_INDEX, 0, -1],
            ["HKEYS", keys.DEAD_LETTER_MODELS],
            ["MGET", *self._results],
            *(["HGET", name, "ended"] for name in self._job_records),
        ]

    def read(self) -> Queue:
        """What the server holds, in the model's words."""
        answers = self._ask([], [self._questions])
        lists, flows, (suspects, delays, expiries, leased, records) = answers[:4], answers[4:11], answers[11:16]
        isolation, claims, dead, dead_index, dead_models, stored, *ends_noted = answers[16:]
        entries, ends = dict(_pairs(leased)), _pairs(expiries)
        assert sorted(dead) == sorted(dead_index) == sorted(dead_models)
        results = tuple(result and self._result(result) for result in stored)
        failed = [result is not None and result.status == FAILURE for result in results]
        assert [end == FAILURE.encode() for end in ends_noted] == failed
        assert {tag for tag, _ in ends} == set(entries)
        return Queue(
            self._flows(flows, entries) if self._rules.in_flows else _lanes(lists),
            tuple(self._job(entry) for entry in reversed(suspects)),
            tuple(sorted((self._job(entry), float(moment) == LONG_AGO) for entry, moment in _pairs(delays))),
            tuple(sorted(self._lease(tag, float(moment), entries[tag]) for tag, moment in ends)),
            self._records(_pairs(records)),
            results,
            tuple(sorted(int(letter_id) for letter_id in dead)),
            isolation and isolation.decode(),
            int(claims or 0),
        )

    def _flows(self, answers: Sequence[list[bytes]], leased: dict[bytes, bytes]) -> tuple[tuple[int, ...], ...]:
        *orders, waiting, charged, running = answers
        entries = dict(_pairs(waiting))
        lanes = tuple(
            tuple(self._job(entries.pop(member.partition(b"|")[2])) for member in members) for members in orders
        )
        assert not entries, "what waits is in an order"
        assert [self.client.llen(keys.flow_lane_of_step(MODEL, step)) for step in STEPS] == list(map(len, lanes))
        charges = dict(_pairs(charged))
        assert charges.keys() <= leased.keys(), "no tenant is charged for what nobody holds"
        assert dict(_pairs(running)) == ({TENANT.encode(): b"%d" % len(charges)} if charges else {})
        return lanes

    def _job(self, entry: bytes) -> int:
        place, _, job = entry.partition(b"\n")
        assert place.decode() == self._place_of(int(job))
        return int(job)

    def _lease(self, tag: bytes, moment: float, entry: bytes) -> Lease:
        head, _, job = entry.partition(b"\n")
        number, place, delivery, *_ = head.split()
        assert int(number) == self._number(tag.decode())
        assert place.decode() == self._place_of(int(job))
        return Lease(int(number), int(job), int(delivery), moment == LONG_AGO)

    def _records(self, stored: Iterable[tuple[bytes, bytes]]) -> tuple[Record | None, ...]:
        records: list[Record | None] = [None for _ in self._jobs]
        for digest, entry in stored:
            head, _, history = entry.partition(b"\n")
            deaths, retries, is_suspect = (int(field) for field in head.split())
            assert len(history.splitlines()) == deaths + retries
            records[self._digests[digest]] = Record(deaths, retries, bool(is_suspect))
        return tuple(records)

    @staticmethod
    def _result(stored: bytes) -> Result:
        for status in (SUCCESS, FAILURE):
            number = stored.decode().removeprefix(f'{{"status": "{status}", "result": "').removesuffix('"}')
            if number.isdigit():
                return Result(status, int(number))
        raise AssertionError(stored)

    def snapshot(self) -> Snapshot:
        """Everything, to come back to."""
        values = self._ask([], [self._dumps])
        return {name: value for name, value in zip(self._names, values, strict=True) if value is not None}

    def restore(self, snapshot: Snapshot) -> None:
        """Come back to it."""
        self._restore(list(snapshot), list(snapshot.values()))

    @property
    def isolation_key(self) -> str:
        """It may outlive the last suspect, until its holder's next claim or for one lease."""
        return NAMES.isolation

    def side_keys(self) -> list[str]:
        """Names on the server that are neither lanes, results, records of jobs, dead letters, counters nor bell."""
        expected = {*LANES, *self._results, *self._job_records, NAMES.claim_counter}
        expected |= {NAMES.doorbell, NAMES.urgent_doorbell}
        expected |= {keys.DEAD_LETTERS, keys.DEAD_LETTER_INDEX, keys.DEAD_LETTER_MODELS, NAMES.drained}
        return sorted({name.decode() for name in self.client.keys("*")} - expected)


def _flow_keys() -> list[str]:
    names = [keys.flow_lane_of_step(MODEL, step) for step in STEPS]
    names += [f"fleet:{kind}:{step}:{MODEL}" for kind in ("order", "shares", "spent") for step in STEPS]
    return [*names, NAMES.waiting, NAMES.charged, NAMES.running, f"fleet:turns:{MODEL}", f"fleet:held:{MODEL}"]


def _lanes(lists: Sequence[list[bytes]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(job) for job in reversed(lane)) for lane in lists)


def _pairs(flat: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))
