"""The Celery app that Flower loads: no tasks, the broker of ``CELERY_BROKER_URL``, the fleet's priority lanes."""

import os

from celery import Celery

from producer import keys

app = Celery("fleet", broker=os.environ.get("CELERY_BROKER_URL", "redis://127.0.0.1:6379/0"))
app.conf.update(
    accept_content=["json"],
    # Flower adds up a queue's lanes, so it must know how they are called.
    broker_transport_options={"priority_steps": sorted(keys.PRIORITY_STEPS.values())},
)
