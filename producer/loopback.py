"""Addresses that only this machine can reach."""

from ipaddress import ip_address


def is_this_machine(host: str) -> bool:
    """Whether nobody else can reach this address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
