"""The fleet's address as Celery and kombu want it: for ``sentinel://`` they have a form of their own."""

from typing import Any
from urllib.parse import quote

from producer.sentinel_address import SCHEME, SentinelAddress, names_sentinels, place_of


def broker_settings(redis_url: str, options: dict[str, Any], sentinel_options: dict[str, Any]) -> dict[str, Any]:
    """Celery's ``broker_url`` and ``broker_transport_options``.

    ``options`` are the transport's for any address, ``sentinel_options`` those of connections to sentinels.

    Raises:
        ValueError: it is no address.
    """
    if not names_sentinels(redis_url):
        return {"broker_url": redis_url, "broker_transport_options": options}
    address = SentinelAddress.parsed(redis_url)
    login = _login(address)
    asked = [f"{SCHEME}{login}{place_of(host, port)}/{address.database}" for host, port in address.sentinels]
    sentinel_options = sentinel_options | {"password": address.sentinel_password}
    return {
        "broker_url": ";".join(asked),
        "broker_transport_options": options | {"master_name": address.master_name, "sentinel_kwargs": sentinel_options},
    }


def _login(address: SentinelAddress) -> str:
    if address.username is None and address.password is None:
        return ""
    return f"{quote(address.username or '', safe='')}:{quote(address.password or '', safe='')}@"
