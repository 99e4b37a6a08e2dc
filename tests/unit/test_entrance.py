"""Who waits at an engine's entrance, and what lets them in."""

import asyncio

import pytest

from workers.engine.entrance import Entrance, Patience, group_jobs

NEVER_SECONDS = 3600.0


class Visitors:
    """Who came to the entrance, and who is inside."""

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self.inside: list[str] = []

    def comes(
        self, name: str, patience_seconds: float = NEVER_SECONDS, jobs: int | None = None
    ) -> "asyncio.Task[None]":
        """One more."""

        async def visit() -> None:
            await self._entrance.enter(Patience(patience_seconds, jobs))
            self.inside.append(name)

        return asyncio.create_task(visit())


async def settled() -> None:
    """Whatever can go on has done so."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def visitors() -> Visitors:
    """Visitors of an entrance for groups of three."""
    return Visitors(Entrance(3))


async def test_a_group_enters_when_it_is_complete(visitors: Visitors) -> None:
    """The first two wait for the third, and the fourth for the next two."""
    tasks = [visitors.comes(name) for name in "ab"]
    await settled()
    assert visitors.inside == []
    tasks += [visitors.comes(name) for name in "cd"]
    await settled()
    assert sorted(visitors.inside) == ["a", "b", "c"]
    tasks += [visitors.comes(name) for name in "ef"]
    await asyncio.gather(*tasks)
    assert sorted(visitors.inside) == ["a", "b", "c", "d", "e", "f"]


async def test_nobody_waits_longer_than_the_first_ones_patience(visitors: Visitors) -> None:
    """Who comes second waits for less."""
    first = visitors.comes("first", 0.05)
    await settled()
    second = visitors.comes("second", NEVER_SECONDS)
    await asyncio.wait_for(asyncio.gather(first, second), 10.0)
    assert sorted(visitors.inside) == ["first", "second"]
    third = visitors.comes("third", 0.05)  # a timer of its own
    await asyncio.wait_for(third, 10.0)


async def test_whoever_cannot_wait_takes_the_others_along(visitors: Visitors) -> None:
    """A prompt is begun in any case."""
    waiting = visitors.comes("waiting")
    await settled()
    await asyncio.wait_for(asyncio.gather(waiting, visitors.comes("urgent", 0.0)), 10.0)
    assert sorted(visitors.inside) == ["urgent", "waiting"]


async def test_whoever_is_content_with_fewer_waits_for_fewer(visitors: Visitors) -> None:
    """But never for more than a group."""
    waiting = visitors.comes("waiting")
    await settled()
    await asyncio.wait_for(asyncio.gather(waiting, visitors.comes("modest", jobs=2)), 10.0)
    tasks = [visitors.comes(name, jobs=9) for name in "abc"]
    await asyncio.wait_for(asyncio.gather(*tasks), 10.0)
    assert len(visitors.inside) == 5


async def test_who_leaves_is_not_counted(visitors: Visitors) -> None:
    """A cancelled job does not complete a group."""
    gone = visitors.comes("gone")
    await settled()
    gone.cancel()
    tasks = [visitors.comes(name) for name in "ab"]
    await settled()
    assert visitors.inside == []
    await asyncio.gather(*tasks, visitors.comes("c"))
    assert sorted(visitors.inside) == ["a", "b", "c"]


async def test_a_group_of_one_never_waits() -> None:
    """As if there were no entrance."""
    visitors = Visitors(Entrance(1))
    await asyncio.wait_for(visitors.comes("alone"), 10.0)


@pytest.mark.parametrize(
    ("asked", "sequences", "group"),
    [(0, 256, 32), (0, 260, 32), (0, 15, 1), (0, 1, 1), (1, 256, 1), (20, 256, 20), (100, 256, 64), (9, 3, 1)],
)
def test_a_group_is_an_eighth_of_the_sequences_or_what_was_asked_for(asked: int, sequences: int, group: int) -> None:
    """Never more than a quarter of them."""
    assert group_jobs(asked, sequences) == group
