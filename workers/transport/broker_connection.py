"""Kombu's connections to a server that is there and does not write: a failover, a full disk, no replica near.

It will be well again, as one that is gone; but for kombu and Celery an answer is for good, and a worker would end.
"""

from typing import Any, Final

from redis import Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from producer.sentinels import MasterConnection

REFUSALS: Final = ("MISCONF ", "NOREPLICAS ", "UNBLOCKED ")
"""Of errors that the library has no class for: how their text begins. The last ends a wait when a master is none."""


class WritesRefused(RedisConnectionError):
    """The server does not write now; the message is its own."""


class PatientConnection(Connection):
    """One that such an answer breaks, so that everybody comes again later."""

    def read_response(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - the library's
        """What the server answers.

        Raises:
            WritesRefused: that it does not write now.
        """
        try:
            return super().read_response(*args, **options)
        except ResponseError as error:
            if not isinstance(error, ReadOnlyError | OutOfMemoryError) and not str(error).startswith(REFUSALS):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]
            raise WritesRefused(str(error)) from error


class PatientSSLConnection(PatientConnection, SSLConnection):
    """The same with TLS."""


class PatientMasterConnection(PatientConnection, MasterConnection):
    """The same by way of sentinels."""
