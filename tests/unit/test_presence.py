"""What workers say of themselves: how long it counts, who understands it, and how rates are made."""

from dataclasses import asdict

import orjson
import pytest

from producer.presence import Phase, WorkerPresence, encoded_presence, present
from workers.observe import activity
from workers.observe.activity import Activity
from workers.observe.records import JobFinished

READY = WorkerPresence("one@host", "sim", Phase.READY, True, 5.0, 77, "simulated", "1", gpus=("0", "1"))  # noqa: FBT003


def finished(tokens: int) -> JobFinished:
    """A job of so many tokens."""
    return JobFinished("id", "succeeded", 1.0, 0.1, 0.1, prompt_tokens=3, completion_tokens=tokens)


def test_a_word_counts_until_its_end() -> None:
    """And is read as it was said."""
    said = {b"one@host": encoded_presence(READY)}
    assert present(9.9, [(b"one@host", 10.0)], said, model=None) == [READY]
    assert present(10.0, [(b"one@host", 10.0)], said, model=None) == []


def test_a_worker_of_a_later_version_is_understood() -> None:
    """What it says beyond that is left out; what it does not say has its default."""
    words = asdict(READY) | {"temperature_celsius": 70}
    del words["slots"]
    said = {b"one@host": orjson.dumps(words)}
    assert present(1.0, [(b"one@host", 10.0)], said, model="sim") == [READY]
    assert present(1.0, [(b"one@host", 10.0)], said, model="other") == []


def test_a_name_without_words_is_nobody() -> None:
    """It went between the two writes of a server that lost one."""
    assert present(1.0, [(b"one@host", 10.0)], {}, model=None) == []


def test_rates_are_over_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was before it does not count, and the engine's own count of tokens goes before that of finished jobs."""
    clock = iter([100.0, 110.0, 150.0, 180.0])
    monkeypatch.setattr(activity, "monotonic", lambda: next(clock))
    counted = Activity()
    for _ in range(20):
        counted.job_finished(finished(30))
    assert counted.rates() == (2.0, 60.0)  # 20 jobs in the first 10 s
    counted.job_finished(finished(0))
    assert counted.rates(1600) == (21 / 50, 1600 / 50)  # 50 s after the start
    assert counted.rates(1600) == (1 / 70, 1000 / 70)  # since the look at 110 s, the last one before the window
