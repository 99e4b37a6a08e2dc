"""The contract's tools: functions that a model may ask its caller to run, and what it asked for.

Source of names and shapes: OpenAI's API reference (chat completions, function calling), which models' chat templates
follow.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal, Protocol, Self

from annotated_types import Len
from pydantic import Field, model_validator

from producer.strict import StrictModel

MAX_TOOLS: Final = 128
MAX_TOOL_CALLS: Final = 128
"""Of one message."""
MAX_FUNCTION_NAME_CHARACTERS: Final = 64
MAX_SCHEMA_DEPTH: Final = 64
"""Objects and lists inside each other; vLLM's own limit for a schema."""

FunctionName = Annotated[str, Field(max_length=MAX_FUNCTION_NAME_CHARACTERS, pattern=r"^[a-zA-Z0-9_-]+$")]


class Function(StrictModel):
    """What the model is told about a function."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON Schema of its arguments, which are one object; left out: any object."""
    strict: bool | None = None
    """Hold to the schema also where the model decides; for the engine's tool call parser, if it can."""

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.parameters is not None and _nests_deeper(self.parameters, MAX_SCHEMA_DEPTH):
            raise ValueError(f"parameters of {self.name!r} nest more than {MAX_SCHEMA_DEPTH} levels")
        return self


class Tool(StrictModel):
    """One tool; functions are the only kind."""

    type: Literal["function"] = "function"
    function: Function


class FunctionReference(StrictModel):
    """A function, by its name."""

    name: FunctionName


class NamedToolChoice(StrictModel):
    """This function is to be called, and no other."""

    type: Literal["function"] = "function"
    function: FunctionReference


ToolChoice = Literal["none", "auto", "required"] | NamedToolChoice
"""``auto``: the model decides; ``required``: at least one call; ``none``: no call, though the model sees the tools."""


class FunctionCall(StrictModel):
    """A function and the arguments that the model wants it to have."""

    name: str
    arguments: str
    """JSON, as the model wrote it: nothing promises that it is whole, or holds to the schema."""


class ToolCall(StrictModel):
    """One call that a model asked for; of any size, since a model wrote it."""

    id: str
    """What the tool's answer names (``tool_call_id``)."""
    type: Literal["function"] = "function"
    function: FunctionCall


ToolCalls = Annotated[tuple[ToolCall, ...], Len(min_length=1, max_length=MAX_TOOL_CALLS)]
Tools = Annotated[tuple[Tool, ...], Len(min_length=1, max_length=MAX_TOOLS)]


class Shape(Protocol):
    """A ``response_format``."""

    @property
    def type(self) -> str:
        """Its kind."""


def refuse_contradictions(
    tools: Sequence[Tool] | None,
    choice: ToolChoice | None,
    parallel_tool_calls: object,
    messages: object,
    shape: Shape | None,
) -> None:
    """Return if these fields of a request go together; ``shape`` is its ``response_format``.

    Raises:
        ValueError: they do not; the sentence names the field.
    """
    if not tools:
        if choice not in (None, "none"):
            raise ValueError("tool_choice needs tools")
        if parallel_tool_calls is not None:
            raise ValueError("parallel_tool_calls needs tools")
        return
    if messages is None:
        raise ValueError("tools need messages: the model's chat template shows them to it")
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise ValueError(f"tools: two functions have the name {max(names, key=names.count)!r}")
    if isinstance(choice, NamedToolChoice) and choice.function.name not in names:
        raise ValueError(f"tool_choice: no tool has the name {choice.function.name!r}; there are {', '.join(names)}")
    if shape is not None and shape.type != "text" and choice != "none":
        raise ValueError("response_format does not go with tools that may be called: leave it out, or tool_choice none")


def texts_of(tools: Iterable[Tool], calls: Iterable[ToolCall]) -> Iterable[str]:
    """All that these add to a prompt, nearly as a chat template shows it."""
    for tool in tools:
        yield json.dumps(tool.model_dump(exclude_none=True), ensure_ascii=False)
    for call in calls:
        yield from (call.id, call.function.name, call.function.arguments)


def _nests_deeper(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(value: object) -> Iterable[object]:
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (member for member in members if isinstance(member, dict | list))
