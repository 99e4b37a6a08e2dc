"""What an operator asks about webhooks: the tenants' secrets, what waits in the outbox, and to tell it again."""

from producer.connection import asking
from producer.control_link import ControlLink
from producer.webhooks.outbox import (
    MOST_LISTED,
    WebhookEvent,
    WebhookState,
    check_secret,
    list_run,
    read_all_secrets,
    read_list,
    read_replay,
    replay_run,
    secret_field,
    secret_run,
)
from producer.webhooks.signing import WebhookSecret, fresh_secret

KEEP_SECONDS = 24 * 3600.0
"""How long a secret that was rotated signs beside its successor."""


class WebhookOperations:
    """The part of a producer that is about webhooks; see :class:`producer.Producer`."""

    _url: str
    _link: ControlLink

    def create_webhook_secret(self, tenant: str | None = None) -> str:
        """Make the first secret of a tenant, or of the jobs that have none; from now on its jobs may have webhooks.

        Raises:
            InvalidRequest: it has one, or no tenant may have this name.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        return self._new_secret(tenant, None)

    def rotate_webhook_secret(self, tenant: str | None = None, *, keep_seconds: float = KEEP_SECONDS) -> str:
        """Make another one; the old one signs beside it for so long, so that receivers can change over.

        Raises:
            InvalidRequest: it has none yet, or no tenant may have this name.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        return self._new_secret(tenant, keep_seconds)

    def _new_secret(self, tenant: str | None, keep_seconds: float | None) -> str:
        secret = fresh_secret()
        run = secret_run(tenant, secret, keep_seconds)
        with asking(self._url):
            reply = self._link.webhooks(run)
        check_secret(tenant, reply)
        return secret

    def webhook_secrets(self) -> dict[str | None, list[WebhookSecret]]:
        """The secrets that sign at this moment, by tenant; the one in force first.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            return read_all_secrets(*self._link.webhook_secrets())

    def delete_webhook_secret(self, tenant: str | None = None) -> bool:
        """Remove a tenant's secrets; whether it had any. Webhooks that wait are given up when their jobs end.

        Raises:
            InvalidRequest: no tenant may have this name.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        field = secret_field(tenant)
        with asking(self._url):
            return self._link.delete_webhook_secrets(field)

    def webhooks(
        self, state: WebhookState = WebhookState.PENDING, *, limit: int = 100, offset: int = 0
    ) -> list[WebhookEvent]:
        """Webhooks that are to be told yet, the next first; or those that were given up, the latest first.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        found: list[WebhookEvent] = []
        with asking(self._url):
            for first in range(offset, offset + limit, MOST_LISTED):
                found += read_list(self._link.webhooks(list_run(state, first, offset + limit - first)))
        return found

    def replay_webhook(self, event_id: str) -> bool:
        """Tell a webhook at once that was given up, or waits for its next attempt; it has all its attempts again.

        False: an attempt is being made at this moment.

        Raises:
            UnknownWebhook: it was told, its job has not ended, or the id is wrong.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            reply = self._link.webhooks(replay_run(event_id))
        return read_replay(event_id, reply)
