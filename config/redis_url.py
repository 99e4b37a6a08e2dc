"""What an address of the Redis server must look like."""

import re
from typing import Final
from urllib.parse import urlsplit

LAST_PORT: Final = 65_535
TLS_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
"""As ``producer.tls_options`` reads them; a test holds the two together."""

_SENTINEL_HOST: Final = r"(?:\[[0-9A-Fa-f:.%]+\]|[^\[\]:,/\s]+)(?::[0-9]+)?"
_SENTINELS: Final = re.compile(
    rf"sentinel://(?:[^@]*@)?{_SENTINEL_HOST}(?:,{_SENTINEL_HOST})*/[^/?]+(?:/[0-9]*)?(?:\?(?:sentinel_password=[^&]*)?)?"
)


def check_redis_url(url: str) -> None:
    """Return if ``url`` is an address.

    Either ``redis[s]://[user:password@]host[:port][/database][?options]``, or of sentinels
    ``sentinel://[user:password@]host[:port],host[:port]/master[/database][?sentinel_password=password]``.

    Raises:
        ValueError: it is not; the message never repeats the address, which may hold a password.
    """
    if not url.startswith(("redis://", "rediss://", "sentinel://")):
        raise ValueError("must start with redis://, rediss:// or sentinel://")
    authority = url.partition("://")[2].split("/")[0].split("?")[0].split("#")[0]
    if url.count("@") > authority.count("@") or "#" in url:
        raise ValueError("the password holds one of / # ? @: write it percent-encoded, as %2F %23 %3F %40")
    options = {pair.partition("=")[0] for pair in url.partition("?")[2].split("&") if pair.startswith("ssl_")}
    if options and not url.startswith("rediss://"):
        raise ValueError(f"{min(options)} is for TLS: the address must start with rediss://")
    if options - set(TLS_OPTIONS):
        raise ValueError(f"{min(options - set(TLS_OPTIONS))} is no option; of TLS there are {', '.join(TLS_OPTIONS)}")
    if url.startswith("sentinel://"):
        _check_sentinels(url)
    elif not _has_host_port_and_database(url):
        raise ValueError("must be redis[s]://HOST:PORT/DATABASE with two numbers, such as redis://127.0.0.1:6379/0")


def _check_sentinels(url: str) -> None:
    ports = re.findall(r":([0-9]+)(?=[,/])", url.rpartition("@")[2])
    if not _SENTINELS.fullmatch(url) or not all(0 < int(port) <= LAST_PORT for port in ports):
        raise ValueError(
            "must be sentinel://HOST:PORT,HOST:PORT/MASTER/DATABASE with the master's name, "
            "such as sentinel://10.0.0.1:26379,10.0.0.2:26379/mymaster/0"
        )


def _has_host_port_and_database(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    database = parts.path.removeprefix("/")
    return bool(parts.hostname) and port != 0 and (not database or database.isdecimal())
