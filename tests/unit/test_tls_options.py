"""What of an address is about TLS, and what to do when TLS refuses."""

import ssl
from pathlib import Path

import pytest

from config import redis_url
from producer import Producer
from producer.tls_options import KNOWN, advice, tls_options, without_tls_options
from workers.transport.broker_address import backend_url, broker_settings

STRICT = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}


@pytest.fixture
def file(tmp_path: Path) -> str:
    """One that is there."""
    (tmp_path / "some.pem").touch()
    return str(tmp_path / "some.pem")


def test_without_options_certificates_and_names_are_checked(file: str) -> None:
    """Also when only the CA is given; nothing has to be asked for."""
    assert tls_options("rediss://u:p@host/0") == STRICT
    assert tls_options(f"rediss://host/0?ssl_ca_certs={file}") == STRICT | {"ssl_ca_certs": file}
    assert tls_options("redis://host/0?socket_timeout=3") == {}


def test_certificates_go_unchecked_only_when_it_is_said() -> None:
    """And then a name means nothing either."""
    assert tls_options("rediss://host?ssl_check_hostname=false") == STRICT | {"ssl_check_hostname": False}
    unchecked = {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False}
    assert tls_options("rediss://host?ssl_cert_reqs=none") == unchecked


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis://host?ssl_ca_certs=x", "must start with rediss://"),
        ("rediss://host?ssl_ca_cert=x", "ssl_ca_cert is no option"),
        ("rediss://host?ssl_cert_reqs=maybe", "required or none"),
        ("rediss://host?ssl_check_hostname=0", "true or false"),
        ("rediss://host?ssl_ca_certs=/no/such/file", "/no/such/file is not there"),
        ("rediss://host?ssl_certfile=/dev/null", "go together"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_connected(url: str, complaint: str) -> None:
    """Instead of with the first command, or never."""
    with pytest.raises(ValueError, match=complaint):
        Producer(url)


def test_celery_and_flower_get_them_as_settings(file: str) -> None:
    """The address that Celery shows has no options, because it masks no password of one that has."""
    url = f"rediss://u:p@host:1/2?ssl_ca_certs={file}&socket_timeout=3"
    settings = broker_settings(url, {}, 1.0)
    assert settings["broker_use_ssl"] == settings["redis_backend_use_ssl"] == STRICT | {"ssl_ca_certs": file}
    assert settings["broker_url"] == backend_url(url) == without_tls_options(url)
    assert without_tls_options(url) == "rediss://u:p@host:1/2?socket_timeout=3"


def test_settings_know_the_same_options() -> None:
    """``config`` stands alone, so it has a list of its own."""
    assert set(redis_url.TLS_OPTIONS) == set(KNOWN)
    with pytest.raises(ValueError, match="ssl_ca_cert is no option"):
        redis_url.check_redis_url("rediss://host:1/0?ssl_ca_cert=x")
    with pytest.raises(ValueError, match="must start with rediss://"):
        redis_url.check_redis_url("redis://host:1/0?ssl_ca_certs=x")


def test_other_errors_get_no_advice() -> None:
    """A server that is away has nothing to do with certificates."""
    assert advice(ConnectionRefusedError("Error 111 connecting to 127.0.0.1:1. Connection refused.")) == ""
