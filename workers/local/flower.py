"""How Flower is started over this fleet's queues."""

import sys

from config.settings import Settings


def flower_command(settings: Settings) -> list[str]:
    """Flower's command line. The broker's address is in the environment, where ``ps`` does not show its password."""
    return [
        sys.executable,
        "-m",
        "celery",
        "--app",
        "workers.flower_app",
        "flower",
        f"--address={settings.flower.host}",
        f"--port={settings.flower.port}",
    ]


def flower_environment(settings: Settings) -> dict[str, str]:
    """What Flower's process needs beside its command line."""
    return {"CELERY_BROKER_URL": settings.redis.url}
