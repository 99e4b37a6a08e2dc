"""The commands that the full install adds to ``fleet``."""

import typer

from workers.commands import bench, config, demo, flower, up, worker


def register(app: typer.Typer) -> None:
    """Add them; the entry point of the group ``inference_fleet.commands``."""
    for command in (worker, up, demo, flower, config, bench):
        command.register(app)
