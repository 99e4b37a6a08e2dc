"""Sessions of the gateway's operator's page (``fleet:ui-session:<hash>``): a browser's cookie in place of a key."""

import secrets
from typing import Final

from producer import keys
from producer.api_keys import digest_of
from producer.async_control_link import AsyncControlLink
from producer.connection import asking

SESSION_SECONDS: Final = 8 * 3600
"""From logging in, whatever is done meanwhile."""


def new_session_id() -> str:
    """256 random bits, as text; Redis holds its SHA-256 only."""
    return secrets.token_urlsafe(32)


class AsyncSessions:
    """Part of a producer; see :class:`producer.AsyncProducer`."""

    _url: str
    _link: AsyncControlLink

    async def open_session(self, key_digest: str) -> str:
        """A session of whoever has the key with this digest: its id, which nobody can ask for again.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        session_id = new_session_id()
        with asking(self._url):
            await self._link.keep_session(keys.ui_session(digest_of(session_id)), key_digest, SESSION_SECONDS)
        return session_id

    async def session_key(self, session_id: str) -> str | None:
        """The digest of the key that a session was opened with; None when there is no such session (any more).

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            digest = await self._link.session(keys.ui_session(digest_of(session_id)))
        return None if digest is None else digest.decode()

    async def close_session(self, session_id: str) -> None:
        """End it; idempotent.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            await self._link.end_session(keys.ui_session(digest_of(session_id)))
