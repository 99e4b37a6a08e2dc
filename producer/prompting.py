"""The contract's parts that say what a job is about: messages, and the shape of the answer."""

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Self

from annotated_types import Len
from pydantic import Field, model_validator

from producer.strict import StrictModel
from producer.tools import ToolCalls, texts_of

MAX_CHOICE_STRINGS: Final = 256
MAX_NAME_CHARACTERS: Final = 256

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS)]


class ChatMessage(StrictModel):
    """One turn of a conversation; the worker renders all of them with the model's own chat template."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None
    """Only an assistant that called tools may have said nothing."""
    name: Name | None = None
    tool_calls: ToolCalls | None = None
    """What the assistant asked for in this turn."""
    tool_call_id: Name | None = None
    """The call that a message of role ``tool`` answers."""

    @model_validator(mode="after")
    def _has_what_its_role_may_have(self) -> Self:
        if self.tool_calls is not None and self.role != "assistant":
            raise ValueError(f"tool_calls do not go with role {self.role!r}")
        if self.tool_call_id is not None and self.role != "tool":
            raise ValueError(f"tool_call_id does not go with role {self.role!r}")
        if self.content is None and self.tool_calls is None:
            raise ValueError("content is missing; only a message with tool_calls may leave it out")
        return self

    @property
    def texts(self) -> Iterator[str]:
        """All that it adds to the prompt."""
        if self.content is not None:
            yield self.content
        if self.tool_calls is not None:
            yield from texts_of((), self.tool_calls)


class ResponseFormat(StrictModel):
    """The shape that the text must have, enforced while it is generated (vLLM's structured outputs)."""

    type: Literal["text", "json_object", "json_schema", "regex", "choice"]
    json_schema: dict[str, Any] | None = None
    """A JSON Schema; for ``json_schema`` only."""
    regex: str | None = None
    """For ``regex`` only."""
    choices: Annotated[tuple[str, ...], Len(min_length=1, max_length=MAX_CHOICE_STRINGS)] | None = None
    """The texts to choose from; for ``choice`` only."""

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> Self:
        wanted = {"json_schema": "json_schema", "regex": "regex", "choice": "choices"}.get(self.type)
        for name in ("json_schema", "regex", "choices"):
            given = getattr(self, name) is not None
            if given and name != wanted:
                raise ValueError(f"{name} does not go with type {self.type!r}")
            if not given and name == wanted:
                raise ValueError(f"type {self.type!r} needs {name}")
        return self
