"""How the exporter is started beside a local fleet."""

import sys
from collections.abc import Mapping

from config.settings import Settings
from config.variables import variables


def exporter_command() -> list[str]:
    """Its command line."""
    return [sys.executable, "-m", "producer.cli", "exporter"]


def exporter_environment(settings: Settings) -> Mapping[str, str]:
    """What it needs beside that; Redis' address may hold a password, which ``ps`` must not show."""
    return {"FLEET_REDIS_URL": settings.redis.url} | variables(settings, "exporter") | variables(settings, "log")


def exporter_url(settings: Settings) -> str:
    """Its address."""
    return f"http://{settings.exporter.host}:{settings.exporter.port}"
