"""The options of a ``rediss://`` address that are about TLS: whom to trust, and who one is oneself."""

import os
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

SCHEME: Final = "rediss://"
FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
CHOICES: Final[Mapping[str, Mapping[str, Any]]] = {
    "ssl_cert_reqs": {"required": ssl.CERT_REQUIRED, "none": ssl.CERT_NONE},
    "ssl_check_hostname": {"true": True, "false": False},
}
KNOWN: Final = (*FILES, *CHOICES)


def tls_options(redis_url: str) -> dict[str, Any]:
    """The connection arguments of the client library for this address; none for one without TLS.

    Certificates are checked, and against the server's name, unless the address says otherwise.

    Raises:
        ValueError: an option is unknown, has no such value, names no file that can be read, or is about TLS where
            the address has none.
    """
    given = {name: value for name, value in _pairs(redis_url) if name.startswith("ssl_")}
    if not redis_url.startswith(SCHEME):
        if given:
            raise ValueError(f"{min(given)} is for TLS: the address must start with {SCHEME}")
        return {}
    found = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    found |= {name: _read(name, value) for name, value in given.items()}
    if ("ssl_keyfile" in found) != ("ssl_certfile" in found):
        raise ValueError("ssl_certfile and ssl_keyfile, a client's certificate and its key, go together")
    if found["ssl_cert_reqs"] is ssl.CERT_NONE:
        found["ssl_check_hostname"] = False
    return found


def without_tls_options(redis_url: str) -> str:
    """The address without them, for whoever is given them apart."""
    place, mark, _ = redis_url.partition("?")
    rest = [(name, value) for name, value in _pairs(redis_url) if not name.startswith("ssl_")]
    return place + (mark + urlencode(rest) if rest else "")


def advice(error: BaseException | None) -> str:
    """What to do about a connection that TLS refused, as a sentence after a colon; empty for other errors."""
    text = str(error)
    return next((then for sign, then in _ADVICE.items() if sign in text), "")


_ADVICE: Final = {
    "certificate has expired": "renew the server's certificate (or set this machine's clock)",
    "certificate is not yet valid": "set this machine's clock, or the server's when it made the certificate",
    "Hostname mismatch": "the server's certificate is for another name: use that name in the address",
    "IP address mismatch": "the server's certificate is for another name: use that name in the address",
    "certificate verify failed": "ssl_ca_certs in the address must name the file with the CA that signed the server's "
    "certificate",
    "wrong version number": "no TLS is spoken at that port: is it redis:// instead of rediss://?",
    "record layer failure": "no TLS is spoken at that port: is it redis:// instead of rediss://?",
    "certificate required": "the server asks for a client's certificate: ssl_certfile and ssl_keyfile in the address",
    "EOF occurred in violation of protocol": "the server ended it: if it asks for a client's certificate, give "
    "ssl_certfile and ssl_keyfile in the address",
    "alert unknown ca": "the server does not trust the client's certificate: ssl_certfile must be of its CA",
}
"""By what the TLS library says; the first that fits."""


def _pairs(redis_url: str) -> list[tuple[str, str]]:
    return parse_qsl(redis_url.partition("?")[2], keep_blank_values=True)


def _read(name: str, value: str) -> Any:  # noqa: ANN401 - a path, a switch or one of the library's constants
    if name in FILES:
        if not os.access(value, os.R_OK):
            raise ValueError(f"{name}: the file {value} is not there, or cannot be read")
        return value
    if name not in CHOICES:
        raise ValueError(f"{name} is no option of {SCHEME}; it takes {', '.join(KNOWN)}")
    if value not in CHOICES[name]:
        raise ValueError(f"{name} is {' or '.join(CHOICES[name])}, not {value!r}")
    return CHOICES[name][value]
