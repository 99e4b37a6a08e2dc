"""Which addresses a webhook may be sent to: those of the public internet, and hosts that an operator named."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

_UNICAST: Final = IPv6Network("2000::/3")
"""All of IPv6 that is given to machines on the internet (RFC 4291); IPv4 mapped or translated into IPv6 is outside."""
_REFUSED: Final[tuple[IPv4Network | IPv6Network, ...]] = tuple(
    ip_network(network)
    for network in (
        "100.64.0.0/10",  # shared by carriers (RFC 6598); a cloud's metadata
        "168.63.129.16/32",  # a cloud's own services, though the address is a public one
        "192.0.0.0/24",  # protocols' own (RFC 6890); a cloud's services
        "192.88.99.0/24",  # relays of 6to4
        "2001::/23",  # Teredo (RFC 4380) and protocols' own
        "2002::/16",  # 6to4 (RFC 3056)
        "3fff::/20",  # documentation (RFC 9637)
    )
)
"""Beside what the registries of special addresses (RFC 6890) call not global, which ``ipaddress`` knows."""


class AddressRefused(Exception):
    """A webhook's host is at an address that nobody may be sent to; it is not called."""

    def __init__(self, host: str, address: str) -> None:
        super().__init__(f"{host} is at {address}, which is not public: allow the host by name (--allow-hosts), or not")


class AddressPolicy:
    """The hosts that are allowed by name, whatever their address, and the addresses that all others may have."""

    def __init__(self, allowed_hosts: Iterable[str] = ()) -> None:
        self._allowed_hosts = frozenset(_plain(host) for host in allowed_hosts)

    def check(self, host: str, addresses: Iterable[str]) -> None:
        """Let a host be called at any of these.

        Raises:
            AddressRefused: one of them is not public, and the host was not allowed by name.
        """
        if _plain(host) in self._allowed_hosts:
            return
        for address in addresses:
            if not is_public(address):
                raise AddressRefused(host, address)


def is_public(address: str) -> bool:
    """Whether an address, as text, is one of a machine on the internet."""
    try:
        known = ip_address(address)
    except ValueError:
        return False
    if known.is_multicast or known.is_reserved or known.is_unspecified or not known.is_global:
        return False
    if isinstance(known, IPv6Address) and known not in _UNICAST:
        return False
    return not any(known in network for network in _REFUSED if network.version == known.version)


def host_names(text: str) -> list[str]:
    """Hosts in a setting, which commas or spaces part."""
    return text.replace(",", " ").split()


def _plain(host: str) -> str:
    return host.lower().strip("[]").rstrip(".")
