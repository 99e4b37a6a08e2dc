"""The gateway's keys: made, listed, limited, revoked."""

import time
from dataclasses import replace

from producer.api_keys import (
    ApiKey,
    Role,
    digest_of,
    digest_with_id,
    encoded_key,
    key_for,
    new_secret,
    read_keys,
    replace_run,
)
from producer.connection import asking
from producer.control_link import ControlLink
from producer.rate_limits import UNLIMITED, RateLimits


class KeyOperations:
    """The operator's part about keys; see :class:`producer.Producer`."""

    _url: str
    _link: ControlLink

    def create_key(
        self, name: str, *, role: Role = Role.PRODUCER, tenant: str | None = None, limits: RateLimits = UNLIMITED
    ) -> str:
        """Make a key of the gateway; it is returned this once, and kept nowhere.

        A producer's key submits jobs of ``tenant`` (unless given, the tenant of the key's own name) and sees those
        alone; an operator's sees all.

        Raises:
            InvalidRequest: no key or tenant may have this name, an operator's key is to have a tenant, or a limit is
                none.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        secret = new_secret()
        digest = digest_of(secret)
        key = replace(key_for(digest, name, role, tenant, time.time()), limits=limits.checked())
        with asking(self._url):
            self._link.add_key(digest, encoded_key(key))
        return secret

    def api_keys(self) -> list[ApiKey]:
        """What is known of each of the gateway's keys, the oldest first.

        Raises:
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            known = read_keys(self._link.api_keys())
        return sorted(known.values(), key=lambda key: key.created_at)

    def limit_key(self, key_id: str, limits: RateLimits) -> None:
        """Let a key ask for so much a minute; gateways notice within seconds.

        Raises:
            InvalidRequest: there is no such key, or a limit is none.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        limits.checked()
        with asking(self._url):
            while True:
                stored = self._link.api_keys()
                known = read_keys(stored)
                digest = digest_with_id(known, key_id)
                run = replace_run(digest, stored[digest.encode()], replace(known[digest], limits=limits))
                if self._link.replace_key(run):
                    return

    def revoke_key(self, key_id: str) -> None:
        """Let a key open nothing any more; gateways notice within seconds.

        Raises:
            InvalidRequest: there is no such key.
            FleetUnreachable: Redis could not be reached, or refused.
        """
        with asking(self._url):
            digest = digest_with_id(read_keys(self._link.api_keys()), key_id)
            self._link.revoke_key(digest)
