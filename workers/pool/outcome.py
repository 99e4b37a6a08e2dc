"""The outcome that the task on this thread stands for: the finisher sets it, the task returns or raises it.

Not in Celery's request: what Celery does not know there, it sends along as a header when it retries.
"""

from contextvars import ContextVar

from workers.inference.answer import Outcome

current_outcome: ContextVar[Outcome | Exception] = ContextVar("current_outcome")

current_tag: ContextVar[str | None] = ContextVar("current_tag", default=None)
"""The delivery that a result stored on this thread ends."""
