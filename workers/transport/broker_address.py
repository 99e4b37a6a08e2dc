"""The fleet's address as Celery and kombu want it: ``sentinel://`` has another form there, and TLS is told apart."""

from typing import Any
from urllib.parse import quote

from producer.sentinel_address import SCHEME, SentinelAddress, names_sentinels, place_of
from producer.tls_options import tls_options, without_tls_options


def broker_settings(redis_url: str, options: dict[str, Any], sentinel_timeout_seconds: float) -> dict[str, Any]:
    """Celery's ``broker_url`` and ``broker_transport_options``, which ``options`` are a part of.

    A sentinel that does not answer within ``sentinel_timeout_seconds`` is passed over.

    Raises:
        ValueError: it is no address.
    """
    if not names_sentinels(redis_url):
        settings = {"broker_url": without_tls_options(redis_url), "broker_transport_options": options}
        # Flower knows these settings alone; of an address' options Celery wants some, and passes others by.
        tls = tls_options(redis_url)
        return settings | ({"broker_use_ssl": tls, "redis_backend_use_ssl": tls} if tls else {})
    address = SentinelAddress.parsed(redis_url)
    login = _login(address)
    asked = [f"{SCHEME}{login}{place_of(host, port)}/{address.database}" for host, port in address.sentinels]
    # What workers tell of themselves holds these options: plain values only. None is no retries of the library's.
    sentinel_options = {
        "password": address.sentinel_password,
        "retry": None,
        "socket_connect_timeout": sentinel_timeout_seconds,
        "socket_timeout": sentinel_timeout_seconds,
    }
    master = {"master_name": address.master_name, "sentinel_kwargs": sentinel_options}
    return {"broker_url": ";".join(asked), "broker_transport_options": options | master}


def backend_url(redis_url: str) -> str:
    """The address as Celery may show it: of one with options it masks no password."""
    return str(SentinelAddress.parsed(redis_url)) if names_sentinels(redis_url) else without_tls_options(redis_url)


def _login(address: SentinelAddress) -> str:
    if address.username is None and address.password is None:
        return ""
    return f"{quote(address.username or '', safe='')}:{quote(address.password or '', safe='')}@"
