"""``python -m workers``: the same as ``fleet worker``."""

import typer

from workers.commands.worker import worker

if __name__ == "__main__":
    typer.run(worker)
