"""``sentinel://`` addresses: what they say, what is refused, and what becomes of them for Celery."""

from typing import Any

import pytest

from config.masking import masked_address
from config.redis_url import check_redis_url
from producer import Producer
from producer.connection import address
from producer.redis_client import connect, database_of
from producer.sentinel_address import SentinelAddress
from workers.app import AppSettings, make_app
from workers.transport.broker_address import broker_settings


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sentinel://a/main", SentinelAddress((("a", 26379),), "main")),
        ("sentinel://a,b:1,[::1]:2/main/3", SentinelAddress((("a", 26379), ("b", 1), ("::1", 2)), "main", 3)),
        ("sentinel://:se%40same@a/main/", SentinelAddress((("a", 26379),), "main", password="se@same")),  # noqa: S106 - a test's
        (
            "sentinel://me:open@a/ma%2Fin/0?sentinel_password=se%26same",
            SentinelAddress((("a", 26379),), "ma/in", 0, "me", "open", "se&same"),
        ),
    ],
)
def test_an_address_has_sentinels_a_master_and_perhaps_more(url: str, expected: SentinelAddress) -> None:
    """Both packages take it."""
    check_redis_url(url)
    assert SentinelAddress.parsed(url) == expected


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sentinel://", "names no master"),
        ("sentinel://:sesame@a:26379", "names no master"),
        ("sentinel://:sesame@a:26379/", "names no master"),
        ("sentinel://:sesame@/main", "every sentinel"),
        ("sentinel://:sesame@a,/main", "every sentinel"),
        ("sentinel://:sesame@a:b/main", "every sentinel"),
        ("sentinel://:sesame@[::1/main", "every sentinel"),
        ("sentinel://:sesame@a:0/main", "port"),
        ("sentinel://:sesame@a:70000,b/main", "port"),
        ("sentinel://:sesame@a/main/zero", "database"),
        ("sentinel://:sesame@a/main/0/1", "database"),
        ("sentinel://:sesame@a/main?tls=true", "'tls'"),
    ],
)
def test_what_is_no_address_is_refused_and_says_why(url: str, reason: str) -> None:
    """By both packages, and without the password."""
    with pytest.raises(ValueError, match=reason) as refusal:
        SentinelAddress.parsed(url)
    with pytest.raises(ValueError, match="sentinel://") as refused_settings:
        check_redis_url(url)
    assert "sesame" not in f"{refusal.value} {refused_settings.value}"
    with pytest.raises(ValueError, match=reason):
        Producer(url)


URL = "sentinel://me:sesame@a,b:1/main/3?sentinel_password=sesame"


def test_an_address_is_shown_without_its_passwords() -> None:
    """In errors, in the settings, by Celery, and when printed."""
    app = make_app(AppSettings(URL, "m"))
    shown = [address(URL), masked_address(URL), app.backend.as_uri(), repr(SentinelAddress.parsed(URL))]
    shown.append(app.conf.humanize())
    app.close()
    assert [text for text in shown if "sesame" in text] == []
    assert address(URL) == "sentinel://a:26379,b:1/main/3"


def test_a_client_works_on_the_database_of_the_address() -> None:
    """Celery's event channels carry its number."""
    with connect(URL, connect_timeout_seconds=1, socket_timeout_seconds=1) as client:
        assert database_of(client) == 3


def test_celery_gets_one_address_for_each_sentinel() -> None:
    """Its own form; the master's name and the sentinels' password are options there."""
    settings: dict[str, Any] = broker_settings(URL, {"x": 1}, 2.0)
    assert settings["broker_url"] == "sentinel://me:sesame@a:26379/3;sentinel://me:sesame@b:1/3"
    asked = {"password": "sesame", "retry": None, "socket_connect_timeout": 2.0, "socket_timeout": 2.0}
    options = {"x": 1, "master_name": "main", "sentinel_kwargs": asked}
    assert settings["broker_transport_options"] == options


def test_other_addresses_are_celerys_already() -> None:
    """Unchanged."""
    url = "redis://:sesame@a:1/2?socket_timeout=3"
    assert broker_settings(url, {"x": 1}, 2.0) == {"broker_url": url, "broker_transport_options": {"x": 1}}
