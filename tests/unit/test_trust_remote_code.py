"""Code that comes with a model runs only where an operator has said so; no job can ask for it."""

import logging

import pytest

from config.settings import EngineSettings, ModelSettings, Settings
from producer import GenerationRequest, InvalidRequest, Producer
from workers.engine.vllm_engine import VllmEngine
from workers.from_settings import make_engine
from workers.inference.decode import decode


def trusts(**options: object) -> object:
    """What vLLM is told."""
    engine = make_engine(Settings(model=ModelSettings(name="m"), engine=EngineSettings(options=options)))
    assert isinstance(engine, VllmEngine)
    return engine._config.options["trust_remote_code"]


def test_nothing_is_trusted_unless_asked() -> None:
    """Said to vLLM, whatever its own default will be."""
    assert trusts() is False
    assert trusts(max_num_seqs=8) is False


def test_an_operator_may_ask_and_is_warned(caplog: pytest.LogCaptureFixture) -> None:
    """Each start says it again."""
    with caplog.at_level(logging.WARNING):
        assert trusts(trust_remote_code=True) is True
    assert [record.action for record in caplog.records] == ["code_trusted"]


@pytest.mark.parametrize("value", ["false", "no", 0, 1, None])
def test_what_is_no_answer_is_refused(value: object) -> None:
    """A text that says no is true in Python."""
    with pytest.raises(ValueError, match="true or false"):
        EngineSettings(options={"trust_remote_code": value})


@pytest.mark.parametrize("place", ["trust_remote_code", "sampling", "metadata"])
def test_no_job_can_ask_for_it(place: str) -> None:
    """The contract has no place for it: neither a producer nor a message by hand gets it in."""
    fields: dict[str, object] = {"model": "m", "prompt": "p"}
    if place == "metadata":
        request = decode([fields | {"metadata": {"trust_remote_code": "true"}}])
        assert isinstance(request, GenerationRequest)
        assert trusts() is False
        return
    asked = fields | ({place: True} if place == "trust_remote_code" else {place: {"trust_remote_code": True}})
    with pytest.raises(Exception, match="trust_remote_code"):
        decode([asked])
    with Producer("redis://127.0.0.1:1/0") as producer, pytest.raises(InvalidRequest, match="trust_remote_code"):
        producer.submit(**asked)
