"""Kombu over our transport in this process, and a consumer of the fleet's queue as Celery's is."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from celery import Celery
from kombu import pools
from kombu.connection import Connection
from kombu.transport import redis as kombu_redis

from producer import keys
from tests.deliveries import HANDOVER_SECONDS, HeldQueue
from tests.leasing import MODEL, LeaseQueue
from tests.waiting import eventually
from workers.transport.appetite import Appetite
from workers.transport.channel import install, uninstall
from workers.transport.intake import Intake, Limits
from workers.transport.leases import Leases
from workers.transport.ledger import Ledger
from workers.transport.server_clock import ServerClock

QUEUE = keys.queue(MODEL)
SLOTS = 8
TRANSPORT_OPTIONS = {"priority_steps": sorted(keys.PRIORITY_STEPS.values()), "queue_order_strategy": "priority"}


@dataclass
class Consuming:
    """A connection with one consumer; messages are kept as they come, unacknowledged."""

    connection: Any
    """Kombu's; it carries types in part."""
    queue: str = QUEUE
    no_ack: bool = False
    on_message: Callable[[Any], object] = lambda _message: None
    messages: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        """The queue is consumed from now on."""
        self.channel = self.connection.default_channel
        self.channel.queue_declare(queue=self.queue)
        self.channel.basic_consume(self.queue, self.no_ack, self._received, consumer_tag="one")

    def _received(self, message: Any) -> None:  # noqa: ANN401 - kombu's
        self.messages.append(message)
        self.on_message(message)

    @property
    def job_ids(self) -> list[str]:
        """Which jobs came, in order."""
        return [message.headers["id"] for message in self.messages]

    def turn(self) -> None:
        """One turn of an event loop: send what is to be sent, read what is there."""
        with contextlib.suppress(TimeoutError):
            self.connection.drain_events(timeout=0.01)

    def turn_until(self, condition: Callable[[], object], what: str) -> None:
        """Turns until this is so."""

        def turned() -> object:
            self.turn()
            return condition()

        eventually(turned, what=what)


def connect(url: str, **options: Any) -> Any:  # noqa: ANN401 - kombu carries types in part
    """A connection with the transport that the address names, or the one that is given."""
    return Connection(url, **options)  # type: ignore[no-untyped-call]


def publish(connection: Any, queue: str = QUEUE, **properties: Any) -> None:  # noqa: ANN401 - kombu's
    """A message through kombu, as any of its users sends one."""
    connection.Producer().publish({"x": 1}, routing_key=queue, **properties)


def send_as_stock(url: str, *job_ids: str) -> None:
    """Jobs of a Celery app that knows the task's name and nothing else of us, on kombu's own transport."""
    with Celery("stock", broker=url, set_as_current=False) as app, stock(url) as connection:
        for job_id in job_ids:
            with app.amqp.Producer(connection) as producer:
                arguments = [{"model": MODEL, "prompt": "x"}]
                app.send_task(keys.TASK_NAME, args=arguments, task_id=job_id, queue=QUEUE, producer=producer)


@contextmanager
def stock(url: str, **options: object) -> Iterator[Any]:
    """A connection with kombu's own transport, whatever is installed."""
    with connect(url, transport=kombu_redis.Transport, transport_options=TRANSPORT_OPTIONS | options) as connection:
        yield connection


@contextmanager
def installed(url: str, slots: int = SLOTS, reserved_slots: int = 0) -> Iterator[HeldQueue]:
    """``redis://`` of this process is ours inside; what is left of it is nothing."""
    with LeaseQueue.at(url) as queue:
        appetite = Appetite(reserved_slots=reserved_slots)
        held = HeldQueue(queue, Leases(queue.store(), Ledger(HANDOVER_SECONDS), appetite))
        install(Intake(held.leases, ServerClock(), Limits(QUEUE, slots, batch_max_jobs=slots)))
        try:
            yield held
        finally:
            uninstall()
            pools.reset()  # type: ignore[no-untyped-call]  # kombu carries types in part


@contextmanager
def leased(url: str) -> Iterator[Any]:
    """A connection with our transport, once it is installed; named by nothing but the address."""
    with connect(url, transport_options=TRANSPORT_OPTIONS) as connection:
        yield connection
