"""``sentinel://`` addresses: the master that several sentinels agree on, instead of one server's place."""

import re
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import parse_qsl, quote, unquote

SCHEME: Final = "sentinel://"
FORM: Final = "sentinel://[USER:PASSWORD@]HOST[:26379],HOST[:26379]/MASTER[/DATABASE][?sentinel_password=PASSWORD]"
DEFAULT_PORT: Final = 26379
LAST_PORT: Final = 65_535

_PLACE: Final = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.%]+)\]|(?P<name>[^\[\]:\s]+))(?::(?P<port>[0-9]+))?")


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """Whom to ask, and for what. User and password are the server's; the sentinels have a password of their own."""

    sentinels: tuple[tuple[str, int], ...]
    """Host and port of each."""
    master_name: str
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)

    @classmethod
    def parsed(cls, url: str) -> Self:
        """The parts of ``sentinel://[user:password@]host[:port],host[:port]/master[/database]``, percent-decoded.

        Raises:
            ValueError: it is no such address; the message never repeats a password.
        """
        place, _, query = url.removeprefix(SCHEME).partition("?")
        authority, _, path = place.partition("/")
        login, _, hosts = authority.rpartition("@")
        username, _, password = login.partition(":")
        master_name, _, database = path.partition("/")
        if not master_name:
            raise ValueError(f"names no master: it must be {FORM}")
        if "/" in database or not (database or "0").isdecimal():
            raise ValueError(f"after the master comes at most the number of a database: {FORM}")
        return cls(
            sentinels=tuple(_host_and_port(place) for place in hosts.split(",")),
            master_name=unquote(master_name),
            database=int(database or 0),
            username=unquote(username) or None,
            password=unquote(password) or None,
            sentinel_password=_sentinel_password(query),
        )

    def __str__(self) -> str:
        hosts = ",".join(place_of(host, port) for host, port in self.sentinels)
        return f"{SCHEME}{hosts}/{quote(self.master_name, safe='')}/{self.database}"


def names_sentinels(url: str) -> bool:
    """Whether the address is to be asked of sentinels."""
    return url.startswith(SCHEME)


def place_of(host: str, port: int) -> str:
    """``host:port`` as addresses have it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host_and_port(place: str) -> tuple[str, int]:
    match = _PLACE.fullmatch(place)
    if match is None:
        raise ValueError(f"every sentinel is a HOST or HOST:PORT, with commas between them: {FORM}")
    port = int(match["port"] or DEFAULT_PORT)
    if not 0 < port <= LAST_PORT:
        raise ValueError(f"a sentinel's port is a number from 1 to {LAST_PORT}: {FORM}")
    return match["address"] or match["name"], port


def _sentinel_password(query: str) -> str | None:
    options = dict(parse_qsl(query, keep_blank_values=True))
    password = options.pop("sentinel_password", None)
    if options:
        raise ValueError(f"sentinel:// knows no option {min(options)!r}, only sentinel_password: {FORM}")
    return password or None
