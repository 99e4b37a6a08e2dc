"""The models that the fleet takes jobs for (``fleet:models``), and how many of theirs may wait (``fleet:limits``)."""

from collections.abc import Mapping

import orjson
from pydantic import TypeAdapter, ValidationError

from producer.contract import Name
from producer.errors import InvalidRequest
from producer.jobs import ModelDeclaration

_NAME: TypeAdapter[str] = TypeAdapter(Name)


def checked_name(name: str) -> str:
    """The name, if a model may have it.

    Raises:
        InvalidRequest: it is empty, too long, or no text.
    """
    try:
        return _NAME.validate_python(name)
    except ValidationError as error:
        raise InvalidRequest("a model's name has 1 to 256 characters of text") from error


def declaration(declared_by: str, since: float) -> bytes:
    """The hash's value for one model."""
    return orjson.dumps({"declared_by": declared_by, "since": since})


def read_models(entries: Mapping[bytes, bytes]) -> dict[str, ModelDeclaration]:
    """The hash, by model name."""
    return {name.decode(): ModelDeclaration(**orjson.loads(value)) for name, value in sorted(entries.items())}


def checked_limit(max_waiting_jobs: int | None) -> int | None:
    """The limit, if a queue may have it.

    Raises:
        InvalidRequest: it is negative, or no whole number.
    """
    is_number = isinstance(max_waiting_jobs, int) and not isinstance(max_waiting_jobs, bool)
    if max_waiting_jobs is None or (is_number and max_waiting_jobs >= 0):
        return max_waiting_jobs
    raise InvalidRequest(f"max_waiting_jobs: a whole number of jobs, or None for no limit; not {max_waiting_jobs!r}")


def read_limits(entries: Mapping[bytes, bytes]) -> dict[str, int]:
    """The hash of limits, by model name."""
    return {name.decode(): int(value) for name, value in sorted(entries.items())}
