"""Finds jobs that have ended and tells their webhooks. Any number of deliverers may run, in any processes."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from redis.exceptions import RedisError

from producer.async_control_link import AsyncControlLink
from producer.connection import CONNECT_TIMEOUT_SECONDS, SOCKET_TIMEOUT_SECONDS, Outage
from producer.tasks import end
from producer.watch import FRONT_JOBS, LONGEST_POLL_SECONDS, SHORTEST_POLL_SECONDS, PollSchedule
from producer.webhooks.addresses import AddressPolicy
from producer.webhooks.network import Resolver, addresses_of
from producer.webhooks.outbox import ClaimedEvent, claim_run, look_run, read_claims, read_look, settle_run
from producer.webhooks.payload import Payload, payload_of
from producer.webhooks.retrying import Answer, Decision, Retrying, Verdict
from producer.webhooks.sending import TIMEOUT_SECONDS, Sender
from producer.webhooks.signing import signed_headers

MOST_CLAIMED: Final = 16
"""Events per claim: each comes with its job's result."""
MOST_RUNNING: Final = 64
"""Attempts at a time."""
MOST_AT_ONE_RECEIVER: Final = 16
LEASE_MARGIN_SECONDS: Final = 5.0
"""An attempt's lease is so much longer than its timeout: to note what came of it."""
REFUSED_PAUSE_SECONDS: Final = 5.0
NO_SECRET: Final = "its tenant has no secret to sign it with: fleet webhooks secret create, then replay it"  # noqa: S105

UNFINISHED: Final = "its last attempts were not finished: whoever made them ended first"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """How webhooks are delivered."""

    policy: AddressPolicy = field(default_factory=AddressPolicy)
    retrying: Retrying = field(default_factory=Retrying)
    timeout_seconds: float = TIMEOUT_SECONDS
    resolver: Resolver = addresses_of

    @property
    def lease_seconds(self) -> float:
        """How long nobody else makes an attempt that was begun here."""
        return self.timeout_seconds + LEASE_MARGIN_SECONDS


class Deliverer:
    """Delivers until it is closed; a Redis that is away is waited for."""

    def __init__(self, redis_url: str, options: DeliveryOptions | None = None) -> None:
        self._options = options or DeliveryOptions()
        self._link = AsyncControlLink(
            redis_url,
            connect_timeout_seconds=CONNECT_TIMEOUT_SECONDS,
            socket_timeout_seconds=SOCKET_TIMEOUT_SECONDS,
        )
        self._sender = Sender.with_policy(
            self._options.policy,
            most_connections=MOST_RUNNING,
            timeout_seconds=self._options.timeout_seconds,
            resolver=self._options.resolver,
        )
        self._attempts: set[asyncio.Task[None]] = set()
        self._receivers: Counter[str] = Counter()
        self._oldest = FRONT_JOBS
        self._schedule = PollSchedule()
        self._look_at = 0.0
        self._is_due = False
        self._freed = asyncio.Event()

    async def run(self) -> None:
        """Deliver for ever; cancelled (by :func:`producer.tasks.end`, for once may not do), begin nothing any more."""
        outage = Outage(patience_seconds=None)
        while True:
            try:
                await self._look()
                is_refilled = await self._claim()
            except RedisError as error:
                await asyncio.sleep(self._pause_after(error, outage))
            except Exception:
                logger.exception("webhooks wait: an error in the deliverer", extra={"action": "deliverer_failed"})
                await asyncio.sleep(REFUSED_PAUSE_SECONDS)
            else:
                outage.over()
                await self._pause(is_refilled=is_refilled)

    async def close(self) -> None:
        """Wait for the attempts that were begun, no longer than one takes, and close the connections."""
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=self._options.timeout_seconds)
        for attempt in list(self._attempts):
            await end(attempt)
        await self._sender.close()
        await self._link.close()

    def _pause_after(self, error: RedisError, outage: Outage) -> float:
        try:
            return outage.pause_seconds(error)
        except RedisError:
            logger.exception("webhooks wait: Redis refuses", extra={"action": "webhooks_wait"})
            return REFUSED_PAUSE_SECONDS

    async def _look(self) -> None:
        """Find jobs that have ended, when it is time to."""
        if monotonic() < self._look_at:
            return
        looked = read_look(await self._link.webhooks(look_run(self._oldest)))
        self._oldest = max(FRONT_JOBS, 2 * looked.found)
        self._is_due = looked.is_due
        pause_seconds = self._schedule.pause_seconds(progress=looked.found > 0, waiting_jobs=looked.awaited)
        self._look_at = monotonic() + pause_seconds

    async def _claim(self) -> bool:
        """Begin attempts, as far as there is room; whether there may be more to begin at once."""
        self._freed.clear()  # before it is asked what is free: an attempt that ends meanwhile is noticed
        free = min(MOST_RUNNING - len(self._attempts), MOST_CLAIMED)
        if not self._is_due or free <= 0:
            return False
        run = claim_run(free, self._options.lease_seconds, MOST_AT_ONE_RECEIVER, self._receivers)
        claimed, self._is_due = read_claims(await self._link.webhooks(run))
        for event in claimed:
            self._begin(event)
        return bool(claimed) and self._is_due

    async def _pause(self, *, is_refilled: bool) -> None:
        """Until it is time to look, or to claim: what is due waits for room."""
        if is_refilled:
            await asyncio.sleep(SHORTEST_POLL_SECONDS)
            return
        try:
            async with asyncio.timeout(max(0.0, self._look_at - monotonic())):
                await (self._freed.wait() if self._is_due else asyncio.sleep(LONGEST_POLL_SECONDS))
        except TimeoutError:
            return
        # Those that end together are followed together.
        await asyncio.sleep(SHORTEST_POLL_SECONDS)

    def _begin(self, event: ClaimedEvent) -> None:
        self._receivers[event.receiver] += 1
        attempt = asyncio.create_task(self._attempt(event), name=f"fleet-webhook-{event.event_id}")
        self._attempts.add(attempt)
        attempt.add_done_callback(lambda task: self._ended(task, event))

    def _ended(self, task: "asyncio.Task[None]", event: ClaimedEvent) -> None:
        self._attempts.discard(task)
        self._freed.set()
        self._receivers[event.receiver] -= 1
        if not self._receivers[event.receiver]:
            del self._receivers[event.receiver]
        if not task.cancelled() and (error := task.exception()) is not None:
            # What came of it was not noted: when its lease ends, it is tried once more.
            logger.error(
                "webhook %s: the attempt was not noted: %s",
                event.event_id,
                type(error).__name__,
                extra={"action": "webhook_not_noted", "event_id": event.event_id},
            )

    async def _attempt(self, event: ClaimedEvent) -> None:
        attempts = event.attempt - event.attempts_before
        try:
            payload = payload_of(event)
        except Exception as error:  # noqa: BLE001 - an event that can not be written is given up, not tried for ever
            payload = Payload(b"", event.body)
            answer = Answer(trouble=f"what to tell could not be written: {type(error).__name__}", is_hopeless=True)
        else:
            answer = await self._told(event, payload, attempts)
        decision = self._options.retrying.decision(answer, attempts, now=event.now, chance=random.random())  # noqa: S311 - spreads retries
        await self._link.webhooks(settle_run(event, decision, answer.wrong, payload.kept))
        self._log(event, decision, answer)

    async def _told(self, event: ClaimedEvent, payload: Payload, attempts: int) -> Answer:
        if not event.secrets:
            return Answer(trouble=NO_SECRET, is_hopeless=True)
        if attempts > self._options.retrying.most_attempts:
            return Answer(trouble=UNFINISHED, is_hopeless=True)
        headers = signed_headers(event.event_id, int(event.now), payload.body, event.secrets)
        return await self._sender.send(event.url, headers, payload.body)

    def _log(self, event: ClaimedEvent, decision: Decision, answer: Answer) -> None:
        # The host alone: a path may be as good as a password.
        is_told = decision.verdict is Verdict.TOLD
        again = "given up" if decision.verdict is Verdict.DEAD else f"again in {decision.delay_seconds:.0f} s"
        logger.log(
            logging.INFO if is_told else logging.WARNING,
            "webhook: %s, %s",
            event.receiver,
            "told" if is_told else f"{again}: {answer.wrong}",
            extra={
                "action": "webhook_told" if is_told else "webhook_not_told",
                "event_id": event.event_id,
                "attempt": event.attempt,
                "receiver": event.receiver,
            },
        )


@asynccontextmanager
async def delivering(redis_url: str, options: DeliveryOptions | None) -> AsyncIterator[None]:
    """Deliver beside something else; without options, do not."""
    if options is None:
        yield
        return
    deliverer = Deliverer(redis_url, options)
    running = asyncio.create_task(deliverer.run(), name="fleet-webhooks")
    try:
        yield
    finally:
        await end(running)
        await deliverer.close()
