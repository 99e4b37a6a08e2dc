"""How many messages are where, by model, and how long the oldest waits."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import orjson
from redis import Redis

from producer import keys
from producer.contract import Priority
from producer.registry import MOST_WAITING, read_limits
from producer.script import Script, ScriptRun

QUEUES_SCRIPT: Final = Script.named("flows", "queues")
MOST_TENANTS: Final = 1_000
"""Of one lane, among which its oldest job is looked for."""


@dataclass(frozen=True, slots=True)
class LaneCounts:
    """What waits in one lane of a model."""

    priority: Priority
    waiting: int
    oldest_seconds: float | None = None
    """Since its oldest job came, by the Redis server's clock; None where none waits, or a stock Celery sender's does.
    Of more than :data:`MOST_TENANTS` tenants in a lane, the first by name are looked at."""


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How many messages of one model are where."""

    model: str
    waiting: int
    leased: int
    """Claimed by a worker."""
    delayed: int
    """Their time has not come."""
    suspect: int
    """They may have killed an engine, and are run apart."""
    dead: int
    max_waiting: int | None = None
    """The limit of ``waiting``; None for no limit."""
    lanes: tuple[LaneCounts, ...] = ()
    """What ``waiting`` is the sum of, the most urgent lane first."""

    @property
    def oldest_seconds(self) -> float | None:
        """How long the oldest waiting job of any lane has waited."""
        return max((lane.oldest_seconds for lane in self.lanes if lane.oldest_seconds is not None), default=None)


def count_queues(client: Redis) -> list[QueueCounts]:
    """What is queued for each model that is known, has dead letters or has a limit.

    Raises:
        RedisError: the server could not be reached, or refused.
    """
    dead = count_letters(cast("list[bytes]", client.hvals(keys.DEAD_LETTER_MODELS)))
    known = [name.decode() for name in cast("list[bytes]", client.hkeys(keys.MODELS))]
    limits = read_limits(cast("Mapping[bytes, bytes]", client.hgetall(keys.LIMITS)))
    run = counting_run(models_with_queues(known, dead, limits))
    reply = cast("bytes", client.eval(run.script.text, 0, *map(str, run.arguments)))
    return read_counts(run, reply, dead, limits)


def models_with_queues(known: Iterable[str], dead: Iterable[str], limits: Iterable[str]) -> list[str]:
    """Every model that there is something to say of."""
    return sorted({*known, *dead, *limits})


def counting_run(models: Sequence[str]) -> ScriptRun:
    """The script run that counts, all models at one moment."""
    steps = keys.PRIORITY_STEPS.values()
    return ScriptRun(QUEUES_SCRIPT, (), [MOST_TENANTS, len(steps), *map(str, steps), *models])


def read_counts(
    run: ScriptRun, reply: bytes, dead: Mapping[str, int], limits: Mapping[str, int | None]
) -> list[QueueCounts]:
    """What that run found, with the dead letters and limits by model."""
    models = cast("list[str]", run.arguments[2 + len(keys.PRIORITY_STEPS) :])
    return [
        QueueCounts(
            model,
            sum(found["waiting"]),
            found["leased"],
            found["delayed"],
            found["suspect"],
            dead.get(model, 0),
            limits.get(model, MOST_WAITING),
            tuple(
                LaneCounts(priority, waiting, None if oldest is False else oldest)
                for priority, waiting, oldest in zip(
                    keys.PRIORITY_STEPS, found["waiting"], found["oldest"], strict=True
                )
            ),
        )
        # Lua knows no empty array: without models the reply is an empty object.
        for model, found in zip(models, orjson.loads(reply), strict=True)
    ]


def count_letters(models: Iterable[bytes]) -> Counter[str]:
    """Dead letters by model, from the model of each."""
    return Counter(model.decode() for model in models)
