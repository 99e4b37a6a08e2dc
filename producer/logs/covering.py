"""The last look at a line before it is written: what others put into their sentences may be a prompt or a secret."""

import re
from typing import Final

MASK: Final = "***"
_COVERED: Final = re.compile(
    # A password within an address; also one that somebody forgot to encode.
    r"(?P<address>\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/@]*:)[^\s/]*@"
    # The gateway's keys, secrets of webhooks, tokens of the model hub.
    r"|(?P<key>\b(?:fleet-(?=[\w-]{43}(?![\w-]))|whsec_|hf_(?=\w{30})))[\w+/=-]+"
    # Who sends a key, in a header that was printed.
    r"|(?P<header>\b[Aa]uthorization\W{1,6}(?:Bearer|Basic)\s+)[^\s'\",]+"
    # pydantic quotes what it refuses: a part of a request.
    r"|(?P<refused>\binput_value=).*?(?=, input_type=)"
    # redis-py quotes the command of a pipeline that failed: a part of a result.
    r"|(?P<command>\bCommand # \d+ )\(.*?\)(?= of pipeline caused error)",
    re.DOTALL,
)
_SIGNS: Final = ("://", "fleet-", "whsec_", "hf_", "uthorization", "input_value=", "Command #")
"""One of them is in whatever the expression finds; most lines have none."""


def covered(text: str) -> str:
    """``text`` with the mask where a secret or a part of a request was."""
    if not any(sign in text for sign in _SIGNS):
        return text
    return _COVERED.sub(_mask, text)


def _mask(found: re.Match[str]) -> str:
    kept = next(part for part in found.groups() if part is not None)
    return f"{kept}{MASK}" + ("@" if found["address"] else "")
