"""Another name of a model: a way to the same queue, for every producer, with the model's own limits and records."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import redis
from openai import OpenAI
from typer.testing import CliRunner

from config.settings import ModelSettings
from producer import AsyncProducer, Producer, keys
from producer.cli import build_app
from producer.errors import InvalidRequest, QueueFull, UnknownModel
from tests.gateways import running_gateway
from tests.running import RunningFleet, simulated
from workers.registry import record_aliases, record_served_model

JOB: dict[str, Any] = {"model": "gpt-4o", "prompt": "Once", "sampling": {"max_tokens": 3}}


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[RunningFleet]:
    """A worker whose model has two more names, and one that it can not have."""
    fleet = simulated(redis_url, tmp_path)
    fleet.options = dict(fleet.options) | {"model.aliases": ["gpt-4o", "small", "taken"]}
    with Producer(redis_url) as producer:
        producer.declare_model("taken")
    with fleet:
        yield fleet


def test_openais_client_is_answered_under_the_name_that_it_asked_for(fleet: RunningFleet, tmp_path: Path) -> None:
    """And finds all names in the list, but for the one that is a model's own."""
    assert "alias 'taken': a model has this name itself" in fleet.log.read_text()
    with (
        running_gateway(fleet.redis_url, tmp_path) as address,
        OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 3, "temperature": 0}
        own, other = (client.chat.completions.create(model=name, **asked) for name in ("sim", "gpt-4o"))
        assert (own.model, other.model) == ("sim", "gpt-4o")
        assert own.choices[0].message.content == other.choices[0].message.content
        listed = {one.id: one.to_dict()["root"] for one in client.models.list()}
        assert listed == {"gpt-4o": "sim", "sim": "sim", "small": "sim", "taken": "taken"}
        assert client.models.retrieve("small").to_dict()["root"] == "sim"
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt-5", **asked)


async def test_every_way_to_submit_takes_the_other_name(fleet: RunningFleet) -> None:
    """One job, many, in threads and event loops; the job is the model's own."""
    with Producer(fleet.redis_url) as producer:
        submission = producer.submit(**JOB)
        assert producer.result(submission, timeout_seconds=60).model == "sim"
        assert producer.status(submission).model == "sim"
        mixed = [JOB, JOB | {"model": "sim"}, JOB | {"model": "small"}]
        outcomes = producer.submit_many([*mixed, JOB | {"model": "nobody"}])
        assert [outcome.submission is not None for outcome in outcomes] == [True, True, True, False]
        assert isinstance(outcomes[-1].error, UnknownModel)
        assert [one.unwrap().model for one in producer.map(mixed)] == ["sim"] * 3
    async with AsyncProducer(fleet.redis_url) as waiting:
        result = await waiting.result(await waiting.submit(**JOB), timeout_seconds=60)
        assert result.model == "sim"
        assert [one.unwrap().model async for one in waiting.map(mixed)] == ["sim"] * 3
        assert all(one.submission for one in await waiting.submit_many(mixed))


@pytest.fixture
def operator(redis_url: str) -> Iterator[Producer]:
    """A producer of a fleet that knows two models and has no worker."""
    with Producer(redis_url) as producer:
        producer.declare_model("large")
        producer.declare_model("other")
        yield producer


def test_limits_and_idempotency_keys_are_the_models_own(operator: Producer) -> None:
    """Under whichever name a job comes."""
    operator.set_alias("gpt-4o", "large")
    keyed = JOB | {"idempotency_key": "once"}
    first, second = operator.submit(**keyed), operator.submit(**keyed | {"model": "large"})
    assert (second.job_id, second.duplicate) == (first.job_id, True)
    assert operator.submit(**keyed).job_id == first.job_id
    operator.set_queue_limit("large", 1)
    with pytest.raises(QueueFull, match="'large'"):
        operator.submit(**JOB)


def test_an_alias_is_moved_and_forgotten(operator: Producer) -> None:
    """By operators; the next job goes where it points then."""
    operator.set_alias("gpt-4o", "large")
    operator.set_alias("gpt-4o", "other")
    assert operator.status(operator.submit(**JOB)).model == "other"
    assert operator.forget_alias("gpt-4o")
    assert not operator.forget_alias("gpt-4o")
    with pytest.raises(UnknownModel, match="gpt-4o"):
        operator.submit(**JOB)


def test_what_can_not_be_an_alias_is_refused(operator: Producer) -> None:
    """And changes nothing."""
    for alias, model, words in (
        ("other", "large", "a model has this name itself"),
        ("gpt-4o", "nobody", "model 'nobody' is not known"),
        ("", "large", "1 to 256 characters"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            operator.set_alias(alias, model)
    assert operator.aliases() == {}
    with pytest.raises(ValueError, match="twice"):
        ModelSettings(aliases="a, b,a")
    assert ModelSettings(aliases="a, b").other_names == ("a", "b")


def test_a_model_of_the_same_name_comes_first(operator: Producer) -> None:
    """A worker that serves it really is who is meant."""
    operator.set_alias("gpt-4o", "large")
    operator.declare_model("gpt-4o")
    assert operator.status(operator.submit(**JOB)).model == "gpt-4o"


def test_a_worker_takes_no_alias_from_another_model(
    operator: Producer, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so, and what it had before stays its own."""
    with redis.Redis.from_url(redis_url) as client:
        record_served_model(client, "mine")
        operator.set_alias("gpt-4o", "large")
        record_aliases(client, "mine", ["gpt-4o", "free"])
        record_aliases(client, "mine", ["free"])
        assert client.hgetall(keys.ALIASES) == {b"gpt-4o": b"large", b"free": b"mine"}
    assert "is another name of 'large'" in caplog.text


def test_operators_give_other_names_by_command(operator: Producer, redis_url: str) -> None:
    """And see them in the list of models."""
    run, app = CliRunner(env={"FLEET_REDIS_URL": redis_url}), build_app([])
    assert run.invoke(app, ["models", "alias", "gpt-4o", "large"]).exit_code == 0
    assert "gpt-4o\talias of large" in run.invoke(app, ["models", "list"]).output.splitlines()
    assert run.invoke(app, ["models", "unalias", "gpt-4o"]).exit_code == 0
    assert operator.aliases() == {}
    assert run.invoke(app, ["models", "unalias", "gpt-4o"]).exit_code != 0
