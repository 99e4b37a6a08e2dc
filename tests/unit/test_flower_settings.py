"""Who may see Flower: what goes together, and what is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from config.flower_settings import FlowerSettings
from config.loading import load_settings
from workers.local.flower import flower_command, flower_environment

OAUTH2 = {
    "auth_provider": "github",
    "auth": ".*@example.com",
    "oauth2_key": "client",
    "oauth2_secret": "hush",
    "oauth2_redirect_uri": "https://flower.example.com/login",
}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"host": "0.0.0.0"}, "set flower.basic_auth"),  # noqa: S104 - refused
        ({"auth": "ann@example.com"}, "flower.auth say nothing without flower.auth_provider"),
        (OAUTH2 | {"basic_auth": "ann:hush"}, "exclude each other"),
        (OAUTH2 | {"oauth2_key": ""}, "needs flower.oauth2_key too"),
        (OAUTH2 | {"auth_provider": "okta"}, "must be Okta's issuer"),
        (OAUTH2 | {"auth_provider": "okta", "oauth2_domain": "http://okta.example.com"}, "must be Okta's issuer"),
        (OAUTH2 | {"auth_provider": "google", "oauth2_domain": "example.com"}, "says nothing for google"),
        (OAUTH2 | {"oauth2_domain": "https://git.example.com/"}, "must be a host"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], message: str) -> None:
    """With what to do."""
    with pytest.raises(ValidationError, match=message):
        FlowerSettings(**given)


def test_a_provider_opens_it_to_other_machines() -> None:
    """As a password does."""
    assert FlowerSettings(host="0.0.0.0", **OAUTH2).is_guarded  # noqa: S104 - guarded
    assert FlowerSettings(host="0.0.0.0", basic_auth="ann:hush").is_guarded  # noqa: S104 - guarded


def test_secrets_are_in_the_environment_alone() -> None:
    """Not on the command line, and not where settings are shown."""
    variables = {f"FLEET_FLOWER__{name.upper()}": value for name, value in OAUTH2.items()}
    loaded = load_settings(config_file=None, environ=variables, overrides={})
    told = flower_environment(loaded.settings)
    assert told["FLOWER_OAUTH2_SECRET"] == "hush"  # noqa: S105 - of this test
    assert told["FLOWER_AUTH_PROVIDER"] == "flower.views.auth.GithubLoginHandler"
    assert "hush" not in repr(loaded.settings) + repr(loaded.shown()) + " ".join(flower_command())
