"""The base of everything on the wire: immutable, and an unknown field is refused."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

UNKNOWN_FIELD: Final = "unknown_field"
"""The kind of finding that names a field nobody knows; its context has the ``name``."""


class WireModel(BaseModel):
    """A frozen model of what the fleet itself wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_bytes="utf8")


class StrictModel(WireModel):
    """One of what people write: what it does not know is named, with the nearest known name."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, value: Any) -> Any:  # noqa: ANN401 - whatever JSON held
        # Run for every object of every job: the common case is one comparison of two key views.
        if isinstance(value, Mapping) and not value.keys() <= cls.__pydantic_fields__.keys():
            unknown = next(name for name in value if name not in cls.__pydantic_fields__)
            sentence = cls.unknown_field(str(unknown))
            raise PydanticCustomError(UNKNOWN_FIELD, "{sentence}", {"sentence": sentence, "name": str(unknown)})
        return value

    @classmethod
    def unknown_field(cls, name: str) -> str:
        """The sentence that refuses a field of this name; a model that knows a better hint overrides it."""
        return unknown_name("field", name, cls.model_fields)


def unknown_name(kind: str, name: str, known: Mapping[str, Any]) -> str:
    """A sentence that refuses ``name`` and offers what was probably meant, or everything that is known."""
    nearest = get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(sorted(known))}"
    return f"unknown {kind} {name!r}: {hint}"


def readable(error: ValidationError) -> str:
    """Each finding of a validation error as ``path: what is wrong``, joined by semicolons; never the input itself."""
    findings = []
    for finding in error.errors(include_url=False, include_input=False, include_context=False):
        path = ".".join(str(part) for part in finding["loc"])
        text = finding["msg"].removeprefix("Value error, ")
        findings.append(f"{path}: {text}" if path else text)
    return "; ".join(findings)
