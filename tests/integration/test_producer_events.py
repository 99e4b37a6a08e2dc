"""A queued job is seen by whoever listens to Celery's events, as Flower does."""

import threading
from typing import Any

from celery import Celery
from celery.events.state import State
from redis import Redis

from producer import Producer, keys
from tests.waiting import eventually


def test_celerys_own_event_receiver_and_state_see_the_job_as_pending(redis_url: str) -> None:
    """With its queue, its size instead of its prompt, and the server's time."""
    state = State()

    def on_event(event: dict[str, Any]) -> None:
        state.event(event)
        receiver.should_stop = True

    with (
        Celery("monitor", broker=redis_url, set_as_current=False) as monitor,
        monitor.connection_for_read() as connection,
        Redis.from_url(redis_url) as client,
        Producer(redis_url) as producer,
    ):
        receiver = monitor.events.Receiver(connection, handlers={"*": on_event})
        listener = threading.Thread(target=lambda: receiver.capture(timeout=20, wakeup=False))
        listener.start()
        eventually(lambda: client.pubsub_numpat() > 0, what="the receiver's subscription")
        producer.declare_model("m")
        submission = producer.submit(model="m", prompt="a secret")
        listener.join()

    task = state.tasks[submission.job_id]
    assert (task.name, task.state) == (keys.TASK_NAME, "PENDING")
    assert (task.args, task.routing_key, task.exchange) == ("model m, 8 prompt bytes", "fleet.m", "")
    assert task.sent == submission.enqueued_at
