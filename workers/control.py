"""Celery's remote control commands, as an engine can follow them; docs/flower.md lists what each button does.

Stock ones would say that all is well and change nothing, or fail with an AttributeError. They are registered under the
same names, which Celery allows, in place of its own.
"""

from collections.abc import Mapping
from typing import Any, Final

from celery.worker import control

Reply = Mapping[str, Any]

SLOTS: Final = (
    "an engine's slots are fixed when it starts; for more, set engine.options.max_num_seqs and restart it, "
    "or start another worker"
)
RESTART: Final = "an engine is not restarted alone; Shut Down lets this worker finish its jobs, and it is started again"
OTHER_QUEUE: Final = "this worker holds one model, whose queue is {own!r}; for {asked!r} start a worker with that model"


def register_commands() -> None:
    """For all workers of this process."""
    for name, command in (("pool_grow", refuse_slots), ("pool_shrink", refuse_slots), ("autoscale", refuse_slots)):
        control.control_command(name=name)(command)
    control.control_command(name="pool_restart")(refuse_restart)
    control.control_command(name="add_consumer", args=[("queue", str)], signature="<queue>")(add_consumer)
    limits = [("task_name", str), ("soft", float), ("hard", float)]
    control.control_command(name="time_limit", args=limits, signature="<task_name> <soft> [hard]")(time_limit)


def refuse_slots(_state: object, **_: object) -> Reply:
    """Grow, shrink or autoscale the pool: not an engine's."""
    return {"error": SLOTS}


def refuse_restart(_state: object, **_: object) -> Reply:
    """Restart the pool: not without its worker."""
    return {"error": RESTART}


def add_consumer(state: Any, queue: str, **options: Any) -> Reply:  # noqa: ANN401 - Celery's
    """Take jobs from the worker's own queue again, after a ``cancel_consumer``."""
    own = state.app.conf.task_default_queue
    if queue != own:
        return {"error": OTHER_QUEUE.format(own=own, asked=queue)}
    added: Reply = control.add_consumer(state, queue, **options)
    return added


def time_limit(state: Any, **limits: Any) -> Reply:  # noqa: ANN401 - Celery's
    """Celery notes the limits, but has made the requests' class with the old ones: so that is made anew."""
    noted: Reply = control.time_limit(state, **limits)
    if "ok" in noted:
        state.consumer.update_strategies()
    return noted
