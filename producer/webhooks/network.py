"""Connections to receivers: a host is looked up once, its addresses are checked, and one of these is connected to.

So no second look-up can change its mind in between. TLS is for the host's name, and so is the ``Host`` header.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import httpcore

from producer.webhooks.addresses import AddressPolicy

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, for a port; an ``OSError`` when it has none."""

SocketOptions = Iterable[httpcore.SOCKET_OPTION]
KEEP_ALIVE_SECONDS: Final = 5.0
MOST_KEPT_CONNECTIONS: Final = 32


async def addresses_of(host: str, port: int) -> list[str]:
    """As the system looks them up."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to hosts that the policy lets pass."""

    def __init__(
        self,
        policy: AddressPolicy,
        resolver: Resolver = addresses_of,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._policy = policy
        self._resolver = resolver
        self._network = network or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
        local_address: str | None = None,
        socket_options: SocketOptions | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first of its addresses that answers.

        Raises:
            AddressRefused: it has one that nobody may be sent to.
            ConnectError: it has none, or none answers.
        """
        try:
            addresses = await self._resolver(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"the host's name was not resolved: {error.strerror or error}") from error
        self._policy.check(host, addresses)
        trouble: Exception = httpcore.ConnectError("the host's name has no address")
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                trouble = error
        raise trouble

    async def sleep(self, seconds: float) -> None:
        """For the library's own pauses."""
        await asyncio.sleep(seconds)


def connection_pool(network: CheckedNetwork, most_connections: int) -> httpcore.AsyncConnectionPool:
    """Connections over this network: no proxy, no redirect, certificates checked against the system's and Mozilla's."""
    return httpcore.AsyncConnectionPool(
        ssl_context=httpcore.default_ssl_context(),
        max_connections=most_connections,
        max_keepalive_connections=MOST_KEPT_CONNECTIONS,
        keepalive_expiry=KEEP_ALIVE_SECONDS,
        network_backend=network,
    )
