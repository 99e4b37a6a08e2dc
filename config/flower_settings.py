"""The settings of Flower, the operators' dashboard; docs/flower.md explains them."""

import re
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from config.gateway_settings import is_this_machine
from config.group import DAY_SECONDS, Host, Port, SettingsGroup

_ADDRESS: Final = r"[^@|*\s]+@[^@|*\s]+"
_EVERYBODY_AT: Final = r"[^@|*\s]*\.\*[^@|*\s]*@[^@|*\s]+"
"""One pattern for a whole domain, as Flower reads it: ``.*@example.com``."""
OAUTH2_NEEDS: Final = ("auth", "oauth2_key", "oauth2_secret", "oauth2_redirect_uri")


class FlowerSettings(SettingsGroup):
    """Where Flower listens, who may see it, and what it keeps."""

    host: Host = "127.0.0.1"
    """Address to listen on; beyond this machine somebody has to log in, because Flower can cancel jobs and stop
    workers."""
    port: Port = 5555
    """Port; Flower's own default."""
    basic_auth: str = ""
    """Who may see it, `USER:PASSWORD`, several with commas; empty: whoever reaches it. Never shown."""
    auth_provider: Literal["none", "google", "github", "gitlab", "okta"] = "none"
    """Who vouches for visitors instead of a password (OAuth2); the next five settings belong to it."""
    auth: str = ""
    """Addresses that may see it, `ann@example.com|bob@example.com`, or all of a domain, `.*@example.com`."""
    oauth2_key: str = ""
    """Client ID that the provider gave to this Flower."""
    oauth2_secret: str = ""
    """Client secret that the provider gave to this Flower. Never shown."""
    oauth2_redirect_uri: str = ""
    """Flower's own address for the provider, ending in `/login`: `https://flower.example.com/login`."""
    oauth2_domain: str = ""
    """Host of a GitHub Enterprise or of a GitLab of one's own; empty: theirs. For Okta the issuer's address, such as
    `https://example.okta.com/oauth2/default`, which it needs."""
    cookie_secret: str = ""
    """Signs the cookies of visitors who came by a provider, 32 characters or more; empty: made anew at each start, so
    that they log in again. Never shown."""
    url_prefix: str = ""
    """Path below which a proxy shows it, `tools/flower`; the proxy passes the path on unchanged."""
    state_file: str = ""
    """File that keeps what it knows over restarts; empty: nothing is kept, and `fleet up` takes `flower/state` in its
    own folder. Nobody else may write to its folder: Flower trusts what it reads there."""
    state_save_seconds: int = Field(default=60, ge=1, le=DAY_SECONDS)
    """Seconds between two writes of that file, beside the one at its end: so much a kill loses. Flower answers nobody
    while it writes."""
    max_tasks: int = Field(default=10_000, ge=100, le=1_000_000)
    """Jobs that it remembers; the oldest leave first. docs/flower.md says what one costs."""

    @field_validator("basic_auth")
    @classmethod
    def _names_users(cls, value: str) -> str:
        if value and not all(re.fullmatch(r"[^:]+:.+", pair) for pair in value.split(",")):
            raise ValueError("must be USER:PASSWORD, or several of them with commas")
        if not value.isascii():
            raise ValueError("must be ASCII: Flower compares nothing else")
        return value

    @field_validator("auth")
    @classmethod
    def _names_addresses(cls, value: str) -> str:
        is_list = all(re.fullmatch(_ADDRESS, one) for one in value.split("|"))
        if value and not is_list and not re.fullmatch(_EVERYBODY_AT, value):
            raise ValueError("must be addresses, ann@example.com|bob@example.com, or all of a domain, .*@example.com")
        return value

    @field_validator("oauth2_redirect_uri")
    @classmethod
    def _leads_to_the_login(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.netloc or not parts.path.endswith("/login")):
            raise ValueError("must be Flower's address as browsers reach it, ending in /login")
        return value

    @field_validator("cookie_secret")
    @classmethod
    def _cannot_be_guessed(cls, value: str) -> str:
        if value and len(value) < 32:  # noqa: PLR2004 - as documented
            raise ValueError("must have 32 characters or more; python -c 'import secrets; print(secrets.token_hex())'")
        return value

    @field_validator("url_prefix")
    @classmethod
    def _is_a_path(cls, value: str) -> str:
        value = value.strip("/")
        if not re.fullmatch(r"([\w-]+(/[\w-]+)*)?", value, re.ASCII):
            raise ValueError("must be a path of letters, digits, - and _, such as tools/flower")
        return value

    @model_validator(mode="after")
    def _has_one_way_in(self) -> Self:
        given = [name for name in (*OAUTH2_NEEDS, "oauth2_domain") if getattr(self, name)]
        if self.auth_provider == "none":
            if given:
                raise ValueError(f"{_listed(given)} say nothing without flower.auth_provider")
        elif self.basic_auth:
            raise ValueError("flower.basic_auth and flower.auth_provider exclude each other: leave one out")
        elif missing := [name for name in OAUTH2_NEEDS if name not in given]:
            raise ValueError(f"flower.auth_provider {self.auth_provider!r} needs {_listed(missing)} too")
        else:
            _check_domain(self.auth_provider, self.oauth2_domain)
        return self

    @model_validator(mode="after")
    def _asks_who_can_reach_it(self) -> Self:
        if not self.is_guarded and not is_this_machine(self.host):
            raise ValueError(
                f"flower.host {self.host!r} can be reached by others: set flower.basic_auth, or flower.auth_provider"
            )
        return self

    @property
    def is_guarded(self) -> bool:
        """Whether anybody is asked who they are."""
        return bool(self.basic_auth) or self.auth_provider != "none"


def _listed(names: list[str]) -> str:
    return ", ".join(f"flower.{name}" for name in names)


def _check_domain(provider: str, domain: str) -> None:
    if provider == "okta":
        parts = urlsplit(domain)
        # A code that buys a session does not travel in the clear.
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_this_machine(parts.hostname or ""))
        if not is_safe or not parts.hostname or domain.endswith("/"):
            raise ValueError("flower.oauth2_domain must be Okta's issuer, https://example.okta.com/oauth2/default")
    elif provider == "google" and domain:
        raise ValueError("flower.oauth2_domain says nothing for google")
    elif not re.fullmatch(r"([\w.-]+(:\d+)?)?", domain, re.ASCII):
        raise ValueError("flower.oauth2_domain must be a host, such as git.example.com")
