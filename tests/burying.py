"""Buries messages as a worker does: claimed, found wanting, and moved to the dead letters by the real scripts."""

import json
from dataclasses import dataclass

import redis

from producer import keys
from producer.contract import FailureCode
from workers.transport.arrivals import Rules, dead_letter, parse
from workers.transport.claimed import ClaimedMessage
from workers.transport.lease_store import Finish, LeasePolicy, LeaseStore, Release


@dataclass
class Undertaker:
    """One worker's hold on the queue of one model, on a client of its own."""

    client: "redis.Redis"
    model: str = "m"

    def __post_init__(self) -> None:
        """Open the queue."""
        self.store = LeaseStore(self.client, self.model, LeasePolicy(), consumer="undertaker-", worker="w@h")

    def claim(self) -> ClaimedMessage:
        """The next message, which must be there."""
        [message] = self.store.claim(1, 0).messages
        return message

    def claim_job(self) -> str:
        """The next message's job."""
        parsed = parse(self.claim())
        assert not isinstance(parsed, str)
        return parsed[1]

    def poison(self) -> str:
        """The next job's engine dies under it, and its caller is told that it is not tried again; the letter's id."""
        self.store.release([self.claim().tag], Release.SUSPECT, reason="the engine died")
        claimed = self.claim()
        parsed = parse(claimed)
        assert not isinstance(parsed, str)
        job_id = parsed[1]
        letter = dead_letter(claimed, job_id, FailureCode.POISONED, "it kills engines", self._rules())
        error = {"exc_type": "InferenceFailed", "exc_message": ["poisoned", "it kills engines"], "exc_module": "m"}
        result = json.dumps({"status": "FAILURE", "result": error, "task_id": job_id}).encode()
        self.store.finish([Finish(claimed.tag, keys.result(job_id), result, 60, letter)])
        return letter.letter_id

    def quarantine(self, element: bytes) -> str:
        """This element of the queue is no message; the letter's id."""
        self.client.lpush(keys.queue(self.model), element)
        claimed = self.claim()
        reason = parse(claimed)
        assert isinstance(reason, str)
        letter = dead_letter(claimed, None, FailureCode.INVALID_REQUEST, reason, self._rules())
        assert self.store.bury(claimed.tag, letter)
        return letter.letter_id

    def _rules(self) -> Rules:
        seconds, microseconds = self.client.time()
        return Rules(keys.queue(self.model), 3, seconds + microseconds / 1e6, 0.0)
