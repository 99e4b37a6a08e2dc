"""The Celery app that Flower shows: broker of ``CELERY_BROKER_URL``, the fleet's priority lanes, its task by name."""

import os
from typing import Final

from celery import Celery

from producer import keys
from producer.logs.options import LEVEL_VARIABLE, LogOptions
from producer.logs.setting_up import set_up_logging
from workers.transport.broker_address import broker_settings

if LEVEL_VARIABLE in os.environ:  # it was started by us
    set_up_logging(LogOptions.of_environment(os.environ), "flower", file="flower")

# Flower adds up the lists of a queue, so it must know how they are called.
STEPS: Final = sorted(keys.PRIORITY_STEPS.values())
LANES: Final = {"priority_steps": sorted([*STEPS, *(keys.flow_step(step) for step in STEPS)])}

SENTINEL_TIMEOUT_SECONDS: Final = 2.0

address: Final = os.environ.get("CELERY_BROKER_URL", "redis://127.0.0.1:6379/0")
settings: Final = broker_settings(address, LANES, SENTINEL_TIMEOUT_SECONDS)
# Celery takes the variable rather than the app's settings, and for sentinels it has another form of address.
os.environ["CELERY_BROKER_URL"] = settings["broker_url"]

app = Celery("fleet")
app.conf.update(accept_content=["json"], **settings)


def generate(*_: object) -> None:
    """Never run here: Flower sets limits only of tasks whose name it knows."""


app.task(name=keys.TASK_NAME)(generate)
