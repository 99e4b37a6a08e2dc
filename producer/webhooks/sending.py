"""One attempt to tell a receiver."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import httpcore

from producer.webhooks.addresses import AddressPolicy, AddressRefused
from producer.webhooks.network import CheckedNetwork, Resolver, addresses_of, connection_pool
from producer.webhooks.retrying import Answer

TIMEOUT_SECONDS: Final = 15.0
"""For a whole attempt, from the look-up of the host to the end of the answer; the specification asks for 15 to 30."""
MOST_RESPONSE_BYTES: Final = 4 * 1024
"""Of an answer's body are read, and forgotten."""
MOST_CHARACTERS: Final = 128
_HEADERS: Final = {"content-type": "application/json", "user-agent": "inference-fleet-webhooks/1"}
_RETRY_AFTER: Final = b"retry-after"


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends to receivers that the policy allows; close it in the loop that used it."""

    pool: httpcore.AsyncConnectionPool
    timeout_seconds: float = TIMEOUT_SECONDS

    @classmethod
    def with_policy(
        cls,
        policy: AddressPolicy,
        *,
        most_connections: int,
        timeout_seconds: float = TIMEOUT_SECONDS,
        resolver: Resolver = addresses_of,
    ) -> Self:
        """One with connections of its own."""
        return cls(connection_pool(CheckedNetwork(policy, resolver), most_connections), timeout_seconds)

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """POST this; whatever happens is an answer."""
        try:
            async with asyncio.timeout(self.timeout_seconds):
                return await self._post(url, headers, body)
        except TimeoutError:
            return Answer(trouble=f"no answer within {self.timeout_seconds:g} s")
        except AddressRefused as error:
            return Answer(trouble=f"refused: {error}", is_hopeless=True)
        except (httpcore.NetworkError, httpcore.TimeoutException) as error:
            return Answer(trouble=f"{type(error).__name__}: {error}"[:MOST_CHARACTERS].rstrip(": "))
        except Exception as error:  # noqa: BLE001 - no HTTP, or a URL that the library can not take; it may quote either
            return Answer(trouble=type(error).__name__)

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        sent = list((_HEADERS | dict(headers)).items())
        async with self.pool.stream("POST", url, headers=sent, content=body) as response:
            read_bytes = 0
            async for chunk in response.aiter_stream():
                read_bytes += len(chunk)
                if read_bytes > MOST_RESPONSE_BYTES:
                    break
            found = next((value for name, value in response.headers if name.lower() == _RETRY_AFTER), b"")
            retry_after = found[:MOST_CHARACTERS].decode("latin-1") or None
            return Answer(response.status, retry_after=retry_after)

    async def close(self) -> None:
        """Close the connections."""
        await self.pool.aclose()
