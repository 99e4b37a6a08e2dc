"""Celery's task events, many in one message: the stock dispatcher publishes them 24 at a time, from busy threads.

What monitors receive is the same: Celery's receivers take a list of events wherever they take one.
"""

from typing import Any, Final

import orjson
from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher

NO_LIMIT: Final = 2**31
"""Events held back; who sends one never publishes, which might wait for Redis. Jobs inside the worker bound them."""


class FleetEvents(Events):
    """Named when the app is made."""

    dispatcher_cls = "workers.events:GroupedDispatcher"


class GroupedDispatcher(EventDispatcher):
    """Holds task events back until :meth:`flush`, which ``on_send_buffered`` is to bring about."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - Celery's
        super().__init__(*args, **(options | {"buffer_limit": NO_LIMIT}))

    def _publish(self, event: Any, producer: Any, routing_key: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        if isinstance(event, list) and producer is not None:
            producer = _Encoded(producer)
        return super()._publish(event, producer, routing_key, *args, **options)

    def extend_buffer(self, other: EventDispatcher) -> None:
        """Take over what another dispatcher could not send: also what it still held back."""
        super().extend_buffer(other)
        for group, events in other._group_buffer.items():  # noqa: SLF001 - of the base class
            self._group_buffer[group] += events


class _Encoded:
    """A kombu producer that is given its bodies as JSON."""

    def __init__(self, producer: Any) -> None:  # noqa: ANN401 - kombu's
        self._producer = producer

    def publish(self, body: object, *, serializer: str, **options: Any) -> Any:  # noqa: ANN401 - kombu's
        """As kombu's."""
        try:
            encoded = orjson.dumps(body)
        except TypeError:  # a lone surrogate, say
            return self._producer.publish(body, serializer=serializer, **options)
        return self._producer.publish(encoded, content_type="application/json", content_encoding="utf-8", **options)
