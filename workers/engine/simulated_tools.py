"""How the simulated engine calls tools: by the shapes of their schemas, and never with anything to say.

A forced call (``tool_choice`` ``required`` or a named function) is the least that its schema allows. Where the model
is to decide by itself (``auto``) it calls the first tool if ``request.metadata["simulate"]`` is ``calls_tool``, behind
its first words and as ``<call>{"name": ..., "arguments": ...}</call>``; the parser for that has the name ``simulated``.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from producer.contract import GenerationRequest
from producer.tools import ToolCall
from workers.engine.base import EngineOptionsInvalid, EngineRequest
from workers.engine.tool_calls import (
    ANY_OBJECT,
    ForcedReader,
    Parsed,
    ToolReader,
    ToolSplitter,
    call,
    forced_schema,
    is_forced,
    may_call,
    refuse_without_parser,
)

PARSER: Final = "simulated"
BEGIN: Final = "<call>"
END: Final = "</call>"
CALLS_TOOL: Final = "calls_tool"
MOST_NESTED: Final = 16
"""Where a schema that refers to itself ends."""


def refuse_unknown_parser(name: str) -> None:
    """Return if there is such a parser, or none is asked for.

    Raises:
        EngineOptionsInvalid: there is none.
    """
    if name not in ("", PARSER):
        raise EngineOptionsInvalid(f"tool_call_parser {name!r}: the simulated engine knows {PARSER!r} alone")


def splitter_of(attempt: EngineRequest, parser: str) -> ToolSplitter | None:
    """Reads the calls of this attempt; None where there are none to be read.

    Raises:
        RequestRejected: there may be some, and nobody could read them.
    """
    if not may_call(attempt.request):
        return None
    make_reader: Callable[[], ToolReader] = MarkupReader
    if is_forced(attempt.request):
        make_reader = partial(ForcedReader, attempt.request)
    elif not parser:
        refuse_without_parser()
    return ToolSplitter(attempt.request, make_reader, attempt.begun)


def forced_text(request: GenerationRequest) -> str:
    """What the model writes when it has to call."""
    schema = forced_schema(request)
    return json.dumps(least(schema, schema.get("$defs", {})))


def markup(request: GenerationRequest) -> str:
    """How it writes a call of the first tool."""
    function = (request.tools or ())[0].function
    schema = function.parameters or ANY_OBJECT
    arguments = least(schema, schema.get("$defs", {}))
    return f" {BEGIN}{json.dumps({'name': function.name, 'arguments': arguments})}{END}"


class MarkupReader:
    """Reads what :func:`markup` wrote."""

    def __init__(self) -> None:
        self._text = ""

    def text_characters(self, text: str, token_ids: Sequence[int]) -> int:  # noqa: ARG002 - the protocol's
        """All before a call, or what may become one."""
        self._text += text
        begin = self._text.find(BEGIN)
        if begin >= 0:
            return begin
        size = next((size for size in range(len(BEGIN) - 1, 0, -1) if self._text.endswith(BEGIN[:size])), 0)
        return len(self._text) - size

    def parsed(self, text: str, token_ids: Sequence[int]) -> Parsed:  # noqa: ARG002 - the protocol's
        """The calls; one that was cut off is text."""
        said, *parts = text.split(BEGIN)
        calls = [_call(part.removesuffix(END)) for part in parts if part.endswith(END)]
        return Parsed(said, tuple(calls)) if calls and len(calls) == len(parts) else Parsed(text)


def _call(written: str) -> ToolCall:
    asked = json.loads(written)
    return call(asked["name"], json.dumps(asked["arguments"]))


def least(schema: Any, definitions: dict[str, Any], depth: int = 0) -> Any:  # noqa: ANN401 - JSON
    """A small value of this JSON Schema's shape; None where it says too little, or does not end."""
    if not isinstance(schema, dict) or depth > MOST_NESTED:
        return None
    for chosen in ("enum", "anyOf", "oneOf"):
        if options := schema.get(chosen):
            return options[0] if chosen == "enum" else least(options[0], definitions, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "$ref" in schema:
        return least(definitions.get(str(schema["$ref"]).rpartition("/")[2]), definitions, depth + 1)
    return _of_type(schema, definitions, depth)


def _of_type(schema: dict[str, Any], definitions: dict[str, Any], depth: int) -> Any:  # noqa: ANN401 - JSON
    match schema.get("type", "object" if "properties" in schema else None):
        case "object":
            inner = schema.get("properties", {})
            return {name: least(inner.get(name), definitions, depth + 1) for name in schema.get("required", inner)}
        case "array":
            return [least(schema.get("items"), definitions, depth + 1)] * schema.get("minItems", 0)
        case "string":
            return "x" * schema.get("minLength", 1)
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
    return None
