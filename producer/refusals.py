"""What to do where a Redis server is there and refuses us: a sentence for whoever wrote the address."""

from typing import Final

from producer import tls_options


def advice(error: BaseException | None) -> str:
    """What to do about a refusal that waiting does not mend, as a sentence after a colon; empty for other errors."""
    text = str(error)
    return tls_options.advice(error) or next((then for sign, then in _ADVICE.items() if sign in text), "")


_PASSWORD: Final = "the server asks for a password: put it into the address, redis://USER:PASSWORD@HOST:PORT/0"  # noqa: S105
_ADVICE: Final = {
    "HELLO must be called with": _PASSWORD,
    "Authentication required": _PASSWORD,
    "invalid username-password pair": "look at the user and the password in the address",
    "without any password configured": "leave the password out of the address: the server has none for this user",
    "has no permissions": "give this user of Redis the rights of its role, as in deploy/compose/users.acl.in",
}
"""By what servers say; the first that fits."""
