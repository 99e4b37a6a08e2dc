"""Which URLs a job may have as its webhook."""

import pytest
from pydantic import ValidationError

from producer.contract import GenerationRequest
from producer.webhook_url import MAX_URL_CHARACTERS


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org",
        "http://example.org:8080/fleet?from=%C3%BC&to=a@b",
        "HTTPS://xn--bcher-kva.example/",
        "http://127.0.0.1/",
        "http://[2001:db8::1]:80/x",
        "https://example.org/" + "x" * (MAX_URL_CHARACTERS - 20),
    ],
)
def test_an_absolute_url_is_taken_as_it_is(url: str) -> None:
    """Which hosts may be called is decided when one is."""
    assert GenerationRequest(model="m", prompt="x", webhook=url).webhook == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "a URL with a host"),
        ("example.org/hook", "a URL with a host"),
        ("ftp://example.org", "a URL with a host"),
        ("file:///etc/passwd", "a URL with a host"),
        ("https:///hook", "a URL with a host"),
        ("https://:443/hook", "a URL with a host"),
        ("https://example.org:0", "a URL with a host"),
        ("https://example.org:99999", "is no URL"),
        ("https://[::1", "is no URL"),
        ("https://[fe80::1%25eth0]/", "no %"),
        ("https://example.org\\@127.0.0.1/", "no %"),
        ("https://ann@example.org", "no user or password"),
        ("https://ann:secret@example.org", "no user or password"),
        ("https://example.org/#part", "no fragment"),
        ("https://example.org/a b", "ASCII"),
        ("https://example.org/\r\nHost: x", "ASCII"),
        ("https://bücher.example", "ASCII"),
        ("https://example.org/" + "x" * MAX_URL_CHARACTERS, "characters; at most 2,048"),
    ],
)
def test_any_other_is_refused_with_the_reason(url: str, reason: str) -> None:
    """When the request is made, and never with the URL itself in the message's words."""
    with pytest.raises(ValidationError, match=reason):
        GenerationRequest(model="m", prompt="x", webhook=url)
