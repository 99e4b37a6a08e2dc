"""How Flower is started over this fleet's queues."""

import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from config.settings import Settings
from config.variables import variables

PROVIDERS: Final[Mapping[str, str]] = {
    "google": "flower.views.auth.GoogleAuth2LoginHandler",
    "github": "flower.views.auth.GithubLoginHandler",
    "gitlab": "flower.views.auth.GitLabLoginHandler",
    "okta": "flower.views.auth.OktaLoginHandler",
}
DOMAIN_VARIABLES: Final[Mapping[str, str]] = {
    "github": "FLOWER_GITHUB_OAUTH_DOMAIN",
    "gitlab": "FLOWER_GITLAB_OAUTH_DOMAIN",
    "okta": "FLOWER_OAUTH2_OKTA_BASE_URL",
}


class StateUnusable(Exception):
    """Flower cannot keep what it knows where it is told to, or should not trust what lies there."""


def flower_command() -> list[str]:
    """Flower's command line; all that it is told is in the environment, where ``ps`` shows no password."""
    return [sys.executable, "-m", "workers.flower_site"]


def flower_environment(settings: Settings) -> dict[str, str]:
    """What Flower's process is told, by the names of its own options."""
    given = settings.flower
    texts = {
        "FLOWER_BASIC_AUTH": given.basic_auth,
        "FLOWER_COOKIE_SECRET": given.cookie_secret,
        "FLOWER_URL_PREFIX": given.url_prefix,
        "FLOWER_DB": given.state_file,
        "FLOWER_AUTH_PROVIDER": PROVIDERS.get(given.auth_provider, ""),
        "FLOWER_AUTH": given.auth,
        "FLOWER_OAUTH2_KEY": given.oauth2_key,
        "FLOWER_OAUTH2_SECRET": given.oauth2_secret,
        "FLOWER_OAUTH2_REDIRECT_URI": given.oauth2_redirect_uri,
        DOMAIN_VARIABLES.get(given.auth_provider, ""): given.oauth2_domain,
    }
    return {
        "CELERY_BROKER_URL": settings.redis.url,
        "FLOWER_ADDRESS": given.host,
        "FLOWER_PORT": str(given.port),
        "FLOWER_MAX_TASKS": str(given.max_tasks),
        "FLOWER_PERSISTENT": "true" if given.state_file else "false",
        "FLOWER_STATE_SAVE_INTERVAL": str(given.state_save_seconds * 1000),
        "FLOWER_LOGGING": "none",  # tornado's own way to log, beside ours
        **variables(settings, "log"),
        **{name: text for name, text in texts.items() if text},
    }


def prepare_state(settings: Settings) -> None:
    """Make the folder of its state, for this user alone, where there is none.

    Raises:
        StateUnusable: it cannot be written to, or others can.
    """
    if not settings.flower.state_file:
        return
    folder = Path(settings.flower.state_file).absolute().parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
        mode = folder.stat().st_mode
    except OSError as error:
        raise StateUnusable(f"flower.state_file: {folder} cannot be written to: {error.strerror}") from error
    if mode & stat.S_IWOTH:
        # It is a pickle: whoever writes it has its reader run what they like.
        raise StateUnusable(f"flower.state_file: anybody may write to {folder}; name a folder of Flower's own")


def flower_url(settings: Settings) -> str:
    """Where its pages are."""
    path = f"/{settings.flower.url_prefix}/" if settings.flower.url_prefix else ""
    return f"http://{settings.flower.host}:{settings.flower.port}{path}"
