"""Clients of the server that the sentinels call the master: after a failover they find the new one by themselves.

A connection asks the sentinels when it is made. It is made anew when it broke, and when its server answers
``READONLY``: a master that was made a replica.
"""

import copy
from collections.abc import Mapping
from typing import Any

from redis import Redis, sentinel
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import sentinel as async_sentinel

from producer.cancellable import cancellable
from producer.sentinel_address import SentinelAddress


class Sentinels(sentinel.Sentinel):
    """The library's, safe for threads: it moves the sentinel that answered to the front of a list that they share."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the master.

        Raises:
            redis.sentinel.MasterNotFoundError: no sentinel answers, or none knows a master that is well.
        """
        own = copy.copy(self)
        own.sentinels = list(self.sentinels)
        found: tuple[str, int] = sentinel.Sentinel.discover_master(own, service_name)  # type: ignore[no-untyped-call]
        self.sentinels = own.sentinels
        return found


class AsyncSentinels(async_sentinel.Sentinel):
    """The same for tasks."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the master; see :meth:`Sentinels.discover_master`."""
        own = copy.copy(self)
        own.sentinels = list(self.sentinels)
        found: tuple[str, int] = await async_sentinel.Sentinel.discover_master(own, service_name)
        self.sentinels = own.sentinels
        return found


class MasterConnection(sentinel.SentinelManagedConnection):
    """Asks the sentinels before each connection: the library, when it sends again, goes back to where it was."""

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: ANN401, FBT001, FBT002 - the library's
        """Send what is encoded already; connect first where that is needed."""
        if not self.is_connected:
            self.connect()  # type: ignore[no-untyped-call]
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]


class MasterPool(sentinel.SentinelConnectionPool):
    """Takes its connections to the sentinels along when it is closed."""

    def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 - the library's signature
        """Close the connections, or the idle ones."""
        super().disconnect(inuse_connections)
        if inuse_connections:
            self.sentinel_manager.close()


class AsyncMasterPool(async_sentinel.SentinelConnectionPool, BlockingConnectionPool):
    """The same, and callers queue for its connections."""

    async def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 - the library's signature
        """Close the connections, or the idle ones."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            await self.sentinel_manager.aclose()


def master_client(address: SentinelAddress, arguments: Mapping[str, Any]) -> Redis:
    """A client of the master; ``arguments`` are those of every connection."""
    asked = Sentinels(address.sentinels, sentinel_kwargs=_sentinel_arguments(address, arguments))  # type: ignore[no-untyped-call]
    client: Redis = asked.master_for(  # type: ignore[no-untyped-call]
        address.master_name,
        connection_pool_class=MasterPool,
        connection_class=MasterConnection,
        **_login(address),
        **arguments,
    )
    return client


def async_master_client(address: SentinelAddress, arguments: Mapping[str, Any]) -> AsyncRedis:
    """A client of the master for one event loop; ``arguments`` are those of the pool and of every connection."""
    asked = AsyncSentinels(address.sentinels, sentinel_kwargs=_sentinel_arguments(address, arguments))  # type: ignore[no-untyped-call]
    client: AsyncRedis = asked.master_for(
        address.master_name,
        connection_pool_class=AsyncMasterPool,
        connection_class=cancellable(async_sentinel.SentinelManagedConnection),
        **_login(address),
        **arguments,
    )
    return client


def _login(address: SentinelAddress) -> dict[str, Any]:
    return {"username": address.username, "password": address.password, "db": address.database}


def _sentinel_arguments(address: SentinelAddress, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A sentinel that does not answer as soon as it should connect is passed over: there are others."""
    connect_timeout_seconds = arguments["socket_connect_timeout"]
    return {
        "password": address.sentinel_password,
        "retry": arguments["retry"],
        "socket_connect_timeout": connect_timeout_seconds,
        "socket_timeout": connect_timeout_seconds,
    }
