"""Secrets never leave in text: passwords of addresses, and values whose name says that they are secret."""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

MASK: Final = "***"
_SECRET_NAME: Final = re.compile(r"password|passwd|secret|basic_auth|credential|api_?key|(^|[_-])token$", re.IGNORECASE)
"""``hf_token`` is secret; ``max_num_batched_tokens`` and ``long_prefill_token_threshold`` are about text."""


def masked(name: str, value: Any) -> Any:  # noqa: ANN401 - engine options hold whatever JSON and TOML can
    """``value`` as it may be shown: the mask in place of every secret, however deep it lies."""
    if _SECRET_NAME.search(name) and value not in (None, ""):
        return MASK
    if isinstance(value, Mapping):
        return {key: masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(name, inner) for inner in value]
    if isinstance(value, str) and "://" in value:
        return masked_address(value)
    return value


def masked_address(address: str) -> str:
    """A URL without its password, in the authority or in the query; the user name stays.

    Everything before the last ``@`` counts as user and password: also a password that somebody forgot to encode is
    covered.
    """
    scheme, _, rest = address.partition("://")
    login, at, place = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    if colon:
        login = f"{user}:{MASK}"
    place, question_mark, query = place.partition("?")
    if question_mark:
        pairs = parse_qsl(query, keep_blank_values=True)
        query = urlencode([(key, masked(key, value)) for key, value in pairs], safe="*/:")
    return f"{scheme}://{login}{at}{place}{question_mark}{query}"
