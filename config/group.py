"""What all groups of settings have in common."""

from collections.abc import Iterator
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from config.masking import masked

DAY_SECONDS: Final = 86_400


def _without_none_word(value: Any) -> Any:  # noqa: ANN401 - a value before validation
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


Seconds = Annotated[float, Field(gt=0, le=DAY_SECONDS)]
OptionalSeconds = Annotated[Seconds | None, BeforeValidator(_without_none_word)]
"""TOML and the environment have no null: there the word ``none`` stands for it."""
Host = Annotated[str, Field(min_length=1)]
Port = Annotated[int, Field(ge=1, le=65_535)]


class SettingsGroup(BaseModel):
    """Immutable, refuses unknown names, and shows no secret when printed."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,  # a model may be called 7, and a source that reads numbers cannot know
    )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, masked(name or "", value)
