"""What an address of the Redis server must look like."""

from urllib.parse import urlsplit


def check_redis_url(url: str) -> None:
    """Return if ``url`` is ``redis[s]://[user:password@]host[:port][/database][?options]``.

    Raises:
        ValueError: it is not; the message never repeats the address, which may hold a password.
    """
    if not url.startswith(("redis://", "rediss://")):
        raise ValueError("must start with redis:// or rediss://")
    authority = url.partition("://")[2].split("/")[0].split("?")[0].split("#")[0]
    if url.count("@") > authority.count("@") or "#" in url:
        raise ValueError("the password holds one of / # ? @: write it percent-encoded, as %2F %23 %3F %40")
    if not _has_host_port_and_database(url):
        raise ValueError("must be redis[s]://HOST:PORT/DATABASE with two numbers, such as redis://127.0.0.1:6379/0")


def _has_host_port_and_database(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    database = parts.path.removeprefix("/")
    return bool(parts.hostname) and port != 0 and (not database or database.isdecimal())
