"""``fleet up`` hands every setting of the gateway on to it."""

from dataclasses import fields
from pathlib import Path

import pytest
from pydantic import ValidationError

from config.gateway_settings import GatewaySettings
from config.log_settings import LogSettings
from config.settings import Settings
from producer.gateway.options import GatewayOptions
from producer.logs.options import LogFormat, LogLevel, LogOptions
from workers.local.gateway import gateway_command, gateway_environment, gateway_url

OPTIONS_ALONE = {"redis_url", "webhooks", "tracing", *(field.name for field in fields(LogOptions))}
"""The fleet's own, what its gateway always does, and settings that are not the gateway's alone."""
OPTION_OF = {"cors_origins": "cors_origin"}
"""Where the option's name is another one: it is given once for each."""


def test_each_setting_is_an_option_with_the_same_default() -> None:
    """And the other way round."""
    defaults = {field.name: field.default for field in fields(GatewayOptions) if field.name not in OPTIONS_ALONE}
    set_by = {OPTION_OF.get(name, name): value for name, value in GatewaySettings().model_dump().items()}
    assert set_by == {name: "" if value is None else value for name, value in defaults.items()}


def test_each_setting_of_the_log_is_an_option_with_the_same_default() -> None:
    """And the other way round; they travel as variables."""
    defaults = {field.name.removeprefix("log_"): field.default for field in fields(LogOptions)}
    assert LogSettings().model_dump() == {name: value or "" for name, value in defaults.items()}
    given = LogSettings(level="debug", format="JSON", file="/a/b.log", max_bytes=4096, backups=2)  # type: ignore[arg-type]
    told = LogOptions.of_environment(gateway_environment(Settings(log=given)))
    assert told == LogOptions(LogLevel.DEBUG, LogFormat.JSON, Path("/a/b.log"), 4096, 2)


def test_what_is_set_is_handed_on() -> None:
    """Numbers always, texts where there are any."""
    settings = GatewaySettings(
        host="10.0.0.5",
        port=8443,
        require_keys=True,
        tls_certificate="c.pem",
        tls_key="k.pem",
        cors_origins="https://a.example,https://b.example",
        read_timeout_seconds=1,
        keep_alive_seconds=2,
        request_timeout_seconds=3,
        max_concurrent_requests=4,
        max_buffered_bytes=2**24,
        shutdown_timeout_seconds=6,
        conversation_expires_seconds=7,
        conversation_max_tokens=8,
        conversation_wait_seconds=9,
        webhook_allow_hosts="a.example",
    )
    _, _, _, command, *options = gateway_command(Settings(gateway=settings))
    assert command == "gateway"
    assert options.pop() == "--require-keys"
    assert dict(zip(options[::2], options[1::2], strict=True)) == {
        "--host": "10.0.0.5",
        "--port": "8443",
        "--tls-certificate": "c.pem",
        "--tls-key": "k.pem",
        "--cors-origin": "https://a.example,https://b.example",
        "--read-timeout-seconds": "1.0",
        "--keep-alive-seconds": "2",
        "--request-timeout-seconds": "3.0",
        "--max-concurrent-requests": "4",
        "--max-buffered-bytes": str(2**24),
        "--shutdown-timeout-seconds": "6",
        "--conversation-expires-seconds": "7",
        "--conversation-max-tokens": "8",
        "--conversation-wait-seconds": "9.0",
        "--webhook-allow-hosts": "a.example",
    }
    assert gateway_url(Settings(gateway=settings)) == "https://10.0.0.5:8443"
    plain = gateway_command(Settings())
    assert not {"--require-keys", "--tls-certificate", "--cors-origin"} & set(plain)
    assert gateway_url(Settings()) == "http://127.0.0.1:8000"


@pytest.mark.parametrize("given", [{"tls_certificate": "c.pem"}, {"tls_key": "k.pem"}])
def test_a_certificate_has_a_key(given: dict[str, str]) -> None:
    """And a key a certificate."""
    with pytest.raises(ValidationError, match="set together"):
        GatewaySettings.model_validate(given)


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        (None, ()),
        ([""], ()),
        (["https://a.example, https://b.example/", "*"], ("https://a.example", "https://b.example", "*")),
    ],
)
def test_origins_come_one_by_one_or_with_commas(given: list[str] | None, origins: tuple[str, ...]) -> None:
    """As options and settings have them."""
    assert GatewayOptions(cors_origin=given).origins == origins
