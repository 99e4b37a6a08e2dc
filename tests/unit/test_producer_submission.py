"""What a submission sends: key names, digests, refusals, and what an outage means."""

from datetime import UTC, datetime

import pytest
from kombu.transport.redis import Channel
from redis.exceptions import AuthenticationError, OutOfMemoryError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from producer import keys
from producer.connection import Deadline, Outage, address, asking, submitting
from producer.contract import GenerationRequest, Priority
from producer.errors import FleetUnreachable, InvalidRequest, SubmitFailed
from producer.registry import checked_name
from producer.submission import as_request, body_digest


def request(**fields: object) -> GenerationRequest:
    """A small request."""
    return GenerationRequest.model_validate({"model": "m", "prompt": "x"} | fields)


@pytest.mark.parametrize("priority", list(Priority))
def test_lanes_are_named_as_kombus_redis_transport_names_them(priority: Priority) -> None:
    """Kombu's own class attributes are the reference."""
    step = keys.PRIORITY_STEPS[priority]

    assert step in Channel.priority_steps
    assert keys.lane("m", priority) == ("fleet.m" if step == 0 else f"fleet.m{Channel.sep}{step}")


def test_no_tenant_can_name_another_tenants_idempotency_key() -> None:
    """The separator inside a tenant is escaped."""
    assert keys.idempotency("a:b", "c") != keys.idempotency("a", "b:c")
    assert keys.idempotency(None, "c") == keys.idempotency("", "c") != keys.idempotency("%", "c")


@pytest.mark.parametrize(
    "fields",
    [
        {"deadline": datetime(2030, 1, 1, tzinfo=UTC)},
        {"idempotency_key": "k"},
        {"priority": "normal"},
        {"sampling": {}},
        {"metadata": {}},
    ],
)
def test_key_deadline_and_spelled_out_defaults_do_not_change_the_digest(fields: dict[str, object]) -> None:
    """A caller that tries again counts its deadline anew."""
    assert body_digest(request(**fields)) == body_digest(request())


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "y"},
        {"model": "n"},
        {"priority": "batch"},
        {"tenant": "t"},
        {"metadata": {"a": "b"}},
        {"sampling": {"seed": 0}},
    ],
)
def test_everything_else_changes_the_digest(fields: dict[str, object]) -> None:
    """The same key with another body is a mistake."""
    assert body_digest(request(**fields)) != body_digest(request())


def test_the_order_of_metadata_does_not_change_the_digest() -> None:
    """A dict is no list."""
    assert body_digest(request(metadata={"a": "1", "b": "2"})) == body_digest(request(metadata={"b": "2", "a": "1"}))


def test_a_request_is_given_whole_or_as_fields_not_both_and_not_neither() -> None:
    """Either form is unambiguous."""
    assert as_request(request()) == as_request(None, {"model": "m", "prompt": "x"}) == request()
    for given, fields in ((None, {}), (request(), {"prompt": "x"})):
        with pytest.raises(InvalidRequest, match="either"):
            as_request(given, fields)


@pytest.mark.parametrize("fields", [{"model": "\ud800"}, {"idempotency_key": "\ud800"}, {"tenant": "\ud800"}])
def test_a_name_that_is_no_text_is_refused_before_redis_sees_it(fields: dict[str, object]) -> None:
    """Key names are UTF-8."""
    with pytest.raises(InvalidRequest, match="unicode"):
        as_request({"model": "m", "prompt": "x"} | fields)


@pytest.mark.parametrize("name", ["", "x" * 257, "\ud800"])
def test_a_model_can_not_be_declared_by_a_name_that_no_request_may_have(name: str) -> None:
    """It could never be used."""
    with pytest.raises(InvalidRequest, match="1 to 256 characters"):
        checked_name(name)


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("redis://:password@host:6380/1", "host:6380"),
        ("rediss://user:password@host", "host:6379"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
    ],
)
def test_errors_say_where_redis_was_without_its_password(url: str, where: str) -> None:
    """They end up in logs."""
    assert address(url) == where
    with pytest.raises(SubmitFailed) as caught, submitting(url):
        raise OutOfMemoryError("command not allowed")
    assert where in str(caught.value)
    assert "password" not in str(caught.value)
    with pytest.raises(FleetUnreachable, match="gone"), asking(url):
        raise RedisConnectionError("gone")


@pytest.mark.parametrize("error", [AuthenticationError("wrong"), OutOfMemoryError("full")])
def test_what_will_not_pass_is_not_waited_out(error: RedisError) -> None:
    """However patient the caller."""
    with pytest.raises(type(error)):
        Outage(patience_seconds=None).pause_seconds(error)


def test_an_outage_is_waited_out_in_growing_pauses_until_it_is_over() -> None:
    """From a tenth of a second to one."""
    outage = Outage(patience_seconds=None)
    error = RedisTimeoutError("slow")

    assert [outage.pause_seconds(error) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    outage.over()
    assert outage.pause_seconds(error) == 0.1


def test_without_patience_the_first_lost_connection_is_an_error() -> None:
    """As for a map that has not begun."""
    with pytest.raises(RedisConnectionError):
        Outage(patience_seconds=0).pause_seconds(RedisConnectionError("refused"))


def test_a_deadline_bounds_every_wait_and_none_is_for_ever() -> None:
    """Zero has passed already."""
    assert Deadline(0).has_passed
    assert Deadline(0).remaining(1.0) == 0.0
    assert not Deadline(None).has_passed
    assert Deadline(None).remaining(1.0) == Deadline(60).remaining(1.0) == 1.0
