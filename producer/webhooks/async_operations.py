"""The same about webhooks for event loops: what waits in the outbox, and to tell it again."""

from producer.async_control_link import AsyncControlLink
from producer.connection import asking
from producer.webhooks.outbox import (
    MOST_LISTED,
    WebhookEvent,
    WebhookState,
    list_run,
    read_list,
    read_replay,
    replay_run,
)


class AsyncWebhookOperations:
    """The part of a producer that is about webhooks; see :class:`producer.AsyncProducer`."""

    _url: str
    _link: AsyncControlLink

    async def webhooks(
        self, state: WebhookState = WebhookState.PENDING, *, limit: int = 100, offset: int = 0
    ) -> list[WebhookEvent]:
        """Webhooks in the outbox; see :meth:`producer.Producer.webhooks`."""
        found: list[WebhookEvent] = []
        with asking(self._url):
            for first in range(offset, offset + limit, MOST_LISTED):
                found += read_list(await self._link.webhooks(list_run(state, first, offset + limit - first)))
        return found

    async def replay_webhook(self, event_id: str) -> bool:
        """Tell a webhook at once; see :meth:`producer.Producer.replay_webhook`."""
        with asking(self._url):
            reply = await self._link.webhooks(replay_run(event_id))
        return read_replay(event_id, reply)
