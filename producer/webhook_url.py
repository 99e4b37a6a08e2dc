"""Where the end of a job is told: which URLs a job may have as its webhook."""

from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, WithJsonSchema

MAX_URL_CHARACTERS: Final = 2048
SCHEMES: Final = ("http", "https")
_PRINTABLE: Final = range(0x21, 0x7F)
_SCHEMA: Final[dict[str, Any]] = {"type": "string", "format": "uri", "maxLength": MAX_URL_CHARACTERS}


def checked_url(url: str) -> str:
    """The URL, if a job's end can be told there. Which hosts may be called is known when one is, not here.

    Raises:
        ValueError: it is no absolute http(s) URL in ASCII, or has credentials or a fragment in it.
    """
    if len(url) > MAX_URL_CHARACTERS:
        raise ValueError(f"has {len(url):,} characters; at most {MAX_URL_CHARACTERS:,} are taken")
    if not all(ord(character) in _PRINTABLE for character in url):
        raise ValueError("an ASCII URL without spaces: write a host in punycode, and escape the rest as %XX")
    try:
        parts = urlsplit(url)
        has_port = parts.port != 0
    except ValueError as error:
        raise ValueError(f"is no URL: {error}") from error
    if parts.scheme not in SCHEMES or not parts.hostname or not has_port:
        raise ValueError("a URL with a host, as https://example.org/fleet")
    if "%" in parts.netloc or "\\" in url:
        raise ValueError("a host has no % and no backslash in it")
    if "@" in parts.netloc:
        raise ValueError("no user or password in the URL: whoever receives it checks the signature")
    if "#" in url:
        raise ValueError("no fragment (#...) in the URL: none is ever sent")
    return url


WebhookUrl = Annotated[str, AfterValidator(checked_url), WithJsonSchema(_SCHEMA)]
