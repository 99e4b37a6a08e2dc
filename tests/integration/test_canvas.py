"""Celery's canvas over generation jobs: chains, groups, chords, links and retries are Celery's own, on both engines."""

from collections.abc import Iterator

import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import ChordError

from producer.canvas import generate
from producer.errors import InferenceFailed
from tests.running import RunningFleet
from tests.waiting import eventually

SAMPLING = {"max_tokens": 6, "temperature": 0.0, "ignore_eos": True}
TIMEOUT_SECONDS = 60


@pytest.fixture
def app(fleet: RunningFleet) -> Iterator[Celery]:
    """An app that builds canvases, as a pipeline author has it."""
    with fleet.celery() as app:
        app.set_current()
        yield app


def test_a_chain_feeds_the_first_text_to_the_second(fleet: RunningFleet, app: Celery) -> None:  # noqa: ARG001
    """chain(generate, generate): the second prompt holds the first answer, so it is longer than alone."""
    first = generate(model=fleet.served, prompt="Write a line", sampling=SAMPLING)
    second = generate(model=fleet.served, prompt="Repeat: {{previous}} end", sampling=SAMPLING)
    done = chain(first, second).apply_async()
    answer = done.get(timeout=TIMEOUT_SECONDS)
    first_text = done.parent.get(timeout=TIMEOUT_SECONDS)["choices"][0]["text"]
    alone = generate(model=fleet.served, prompt=f"Repeat: {first_text} end", sampling=SAMPLING).apply_async()
    expected = alone.get(timeout=TIMEOUT_SECONDS)
    assert answer["choices"] == expected["choices"]
    assert answer["usage"]["prompt_tokens"] == expected["usage"]["prompt_tokens"]


def test_a_chord_of_twenty_summaries_ends_in_one(fleet: RunningFleet, app: Celery) -> None:  # noqa: ARG001
    """The body's prompt holds the text of all twenty members."""
    members = [generate(model=fleet.served, prompt=f"Section {n}", sampling=SAMPLING) for n in range(20)]
    body = generate(model=fleet.served, prompt="Summarise:", sampling=SAMPLING)
    done = chord(members)(body)
    answer = done.get(timeout=TIMEOUT_SECONDS)
    texts = [member.get(timeout=TIMEOUT_SECONDS)["choices"][0]["text"] for member in done.parent.results]
    assert len(texts) == 20
    prompt = "Summarise:\n\n" + "\n\n".join(texts)
    alone = generate(model=fleet.served, prompt=prompt, sampling=SAMPLING).apply_async()
    assert answer["choices"] == alone.get(timeout=TIMEOUT_SECONDS)["choices"]


def test_a_failing_member_fails_the_chord_and_spares_the_others(fleet: RunningFleet, app: Celery) -> None:  # noqa: ARG001
    """The body gets a ChordError that names the member; the other members have their answers."""
    good = [generate(model=fleet.served, prompt=f"Section {n}", sampling=SAMPLING) for n in range(5)]
    bad = generate(model=fleet.served, prompt="x", sampling=SAMPLING)
    bad.args[0]["sampling"]["max_tokens"] = -1
    done = chord([*good, bad])(generate(model=fleet.served, prompt="Summarise:", sampling=SAMPLING))
    with pytest.raises(InferenceFailed, match="max_tokens"):
        done.get(timeout=TIMEOUT_SECONDS)
    eventually(lambda: isinstance(done.result, ChordError), what="the body's own state")
    answers = [member.get(timeout=TIMEOUT_SECONDS) for member in done.parent.results[:5]]
    assert all(answer["usage"]["completion_tokens"] == 6 for answer in answers)


def test_a_group_answers_every_member_in_order(fleet: RunningFleet, app: Celery) -> None:  # noqa: ARG001
    """Ten members."""
    sizes = [{"max_tokens": n + 1, "ignore_eos": True} for n in range(10)]
    done = group(generate(model=fleet.served, prompt="x", sampling=size) for size in sizes).apply_async()
    answers = done.get(timeout=TIMEOUT_SECONDS)
    assert [answer["usage"]["completion_tokens"] for answer in answers] == list(range(1, 11))


def test_link_runs_after_success_and_link_error_after_failure(fleet: RunningFleet, app: Celery) -> None:
    """Callbacks may be generation jobs themselves."""
    callback = generate(model=fleet.served, prompt="After: {{previous}}", sampling=SAMPLING).set(
        task_id=f"link-{id(app)}"
    )
    request = generate(model=fleet.served, prompt="First", sampling=SAMPLING)
    request.apply_async(link=callback).get(timeout=TIMEOUT_SECONDS)
    linked = app.AsyncResult(f"link-{id(app)}").get(timeout=TIMEOUT_SECONDS)
    assert linked["usage"]["completion_tokens"] == 6

    rescue = generate(model=fleet.served, prompt="It failed", sampling=SAMPLING).set(
        task_id=f"rescue-{id(app)}", immutable=True
    )
    request.args[0]["sampling"]["max_tokens"] = -1
    failing = request.apply_async(link_error=rescue)
    with pytest.raises(InferenceFailed):
        failing.get(timeout=TIMEOUT_SECONDS)
    assert app.AsyncResult(f"rescue-{id(app)}").get(timeout=TIMEOUT_SECONDS)["usage"]["completion_tokens"] == 6
