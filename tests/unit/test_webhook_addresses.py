"""Which addresses webhooks may be sent to."""

import pytest

from producer.webhooks.addresses import AddressPolicy, AddressRefused, host_names, is_public


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450::5"])
def test_machines_on_the_internet_are_public(address: str) -> None:
    """Version 4 and 6."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.1", "::1"),  # loopback
        *("10.0.0.1", "172.16.0.1", "172.31.255.254", "192.168.1.1", "fd00::1", "fec0::1"),  # private
        *("169.254.169.254", "fe80::1", "fe80::1%eth0", "fd00:ec2::254"),  # link-local, and clouds' metadata
        *("100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192"),  # shared, and clouds' own
        *("0.0.0.0", "0.1.2.3", "::", "255.255.255.255"),  # unspecified, this network, broadcast  # noqa: S104 - none is listened on
        *("224.0.0.1", "239.1.2.3", "ff02::1", "ff0e::1"),  # multicast
        *("192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "2001:db8::1", "240.0.0.1"),  # not for use
        *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1"),  # IPv4 in IPv6
        *("2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "192.88.99.1"),  # tunnels
        *("localhost", "", "8.8.8.8:80", "0x7f000001"),  # no addresses
    ],
)
def test_any_other_address_is_not(address: str) -> None:
    """By the registries of special addresses, and what they leave out."""
    assert not is_public(address)


def test_one_refused_address_refuses_the_host() -> None:
    """A name with a public address and a private one is not for the public one to be tried."""
    with pytest.raises(AddressRefused, match=r"example.org is at 10.0.0.1, which is not public"):
        AddressPolicy().check("example.org", ["8.8.8.8", "10.0.0.1"])
    AddressPolicy().check("example.org", ["8.8.8.8", "2606:4700:4700::1111"])


def test_a_host_is_allowed_by_its_name_alone() -> None:
    """Whole, in any case, with or without the root's dot; addresses are names of themselves."""
    policy = AddressPolicy(host_names("hooks.Internal, 10.1.2.3 [::1]"))
    for host in ("hooks.internal", "HOOKS.internal.", "10.1.2.3", "::1", "[::1]"):
        policy.check(host, ["10.1.2.3"])
    for host in ("internal", "x.hooks.internal", "hooks.internal.example.org", "10.1.2.4"):
        with pytest.raises(AddressRefused):
            policy.check(host, ["10.1.2.3"])
