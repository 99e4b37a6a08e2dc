"""The models that the fleet takes jobs for, as they stand in the ``fleet:models`` hash."""

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
