"""``python -m workers.bench.drivers.event_listener URL``: takes every Celery event as Flower would, and forgets it.

A monitor that listens is what makes events cost what they cost.
"""

import signal
import sys
from typing import Any, Final

from celery import Celery
from celery.events import EventReceiver
from redis import Redis

LISTENING: Final = "bench:listening"


class Listener(EventReceiver):
    """Says in Redis when it has subscribed."""

    def on_consume_ready(self, connection: Any, *_: Any, **__: Any) -> None:  # noqa: ANN401 - kombu's
        """See kombu's ``ConsumerMixin``."""
        with Redis.from_url(connection.as_uri(include_password=True)) as client:
            client.set(LISTENING, 1)


def main() -> int:
    """Listen until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    app = Celery("listener", broker=sys.argv[1])
    with app.connection_for_read() as connection:
        Listener(connection, app=app, handlers={"*": lambda _event: None}).capture(
            limit=None, timeout=None, wakeup=False
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
