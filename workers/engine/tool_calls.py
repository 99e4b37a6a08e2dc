"""From what a model writes to text and tool calls; the same for every engine.

How calls are written is the model's own (markup, JSON), and must not reach a reader as text. What surely is text is
passed on as it comes; the rest is kept back until the choice ends, and the calls come whole with its last increment.
Whatever was passed on is a beginning of what the model wrote, cut where an increment ended: so another attempt can go
on from there (:class:`workers.engine.base.Begun`) without knowing of calls, and writes what was kept back again.
"""

import json
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Final, NoReturn, Protocol

from producer.contract import FailureCode, GenerationRequest
from producer.tools import FunctionCall, NamedToolChoice, ToolCall
from workers.engine.base import Begun, ChoiceIncrement, Increment, RequestRejected

NO_PARSER: Final = (
    "tool_choice: this worker has no parser for what its model writes when it decides by itself: set "
    "engine.tool_call_parser where it is started, or ask for tool_choice 'required', 'none' or a named function"
)
ANY_OBJECT: Final[dict[str, Any]] = {"type": "object", "properties": {}}
"""The schema of a function that has none."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a choice says, and what it asks for."""

    text: str
    calls: tuple[ToolCall, ...] = ()


class ToolReader(Protocol):
    """Reads one choice."""

    def text_characters(self, text: str, token_ids: Sequence[int]) -> int:
        """Take in what is new; how many characters from the choice's beginning surely are text."""

    def parsed(self, text: str, token_ids: Sequence[int]) -> Parsed:
        """The whole choice."""


def may_call(request: GenerationRequest) -> bool:
    """Whether the answer may hold tool calls."""
    return request.tool_choice_in_force != "none"


def is_forced(request: GenerationRequest) -> bool:
    """Whether the answer must be tool calls."""
    return request.tool_choice_in_force not in ("none", "auto")


def refuse_without_parser() -> NoReturn:
    """Refuse a request that lets the model decide, where nobody could read what it writes then.

    Raises:
        RequestRejected: always.
    """
    raise RequestRejected(FailureCode.INVALID_REQUEST, NO_PARSER)


def forced_schema(request: GenerationRequest) -> dict[str, Any]:
    """The JSON Schema of a forced answer, as vLLM's server has it: the named function's arguments, or a list of calls.

    Raises:
        RequestRejected: two tools define different things under one name of ``$defs``.
    """
    choice, tools = request.tool_choice_in_force, request.tools or ()
    parameters = {tool.function.name: tool.function.parameters or ANY_OBJECT for tool in tools}
    if isinstance(choice, NamedToolChoice):
        return parameters[choice.function.name]
    definitions: dict[str, Any] = {}
    calls = []
    for name, schema in parameters.items():
        for defined, meaning in dict(schema.get("$defs") or {}).items():
            if definitions.setdefault(defined, meaning) != meaning:
                message = f"tools: $defs has {defined!r} twice, with different meanings; give one another name"
                raise RequestRejected(FailureCode.INVALID_REQUEST, message)
        arguments = {key: value for key, value in schema.items() if key != "$defs"}
        properties = {"name": {"type": "string", "enum": [name]}, "parameters": arguments}
        calls.append({"properties": properties, "required": ["name", "parameters"]})
    shape: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"type": "object", "anyOf": calls}}
    if request.parallel_tool_calls is False:
        shape["maxItems"] = 1
    return shape | ({"$defs": definitions} if definitions else {})


def call(name: str, arguments: str, call_id: str | None = None) -> ToolCall:
    """A call, under an id of its own unless the model gave one."""
    return ToolCall(
        id=call_id or f"call_{secrets.token_hex(12)}",
        function=FunctionCall(name=_encodable(name), arguments=_encodable(arguments)),
    )


def _encodable(text: str) -> str:
    # Half a character, which JSON can name and UTF-8 can not hold, becomes again how JSON names it.
    return text.encode("utf-8", "backslashreplace").decode()


class ForcedReader:
    """Reads what was written by :func:`forced_schema`."""

    def __init__(self, request: GenerationRequest) -> None:
        self._choice = request.tool_choice_in_force

    def text_characters(self, text: str, token_ids: Sequence[int]) -> int:  # noqa: ARG002 - the protocol's
        """None of it is text."""
        return 0

    def parsed(self, text: str, token_ids: Sequence[int]) -> Parsed:  # noqa: ARG002 - the protocol's
        """The calls; none of a list that was cut off, and of a named function as many arguments as there are."""
        if isinstance(self._choice, NamedToolChoice):
            return Parsed("", (call(self._choice.function.name, text),) if text.strip() else ())
        try:
            asked = json.loads(text)
            calls = tuple(call(one["name"], json.dumps(one["parameters"], ensure_ascii=False)) for one in asked)
        except (ValueError, TypeError, KeyError):
            return Parsed("")
        return Parsed("", calls)


@dataclass(slots=True)
class _Choice:
    reader: ToolReader
    text: str = ""
    """As the model wrote it."""
    token_ids: list[int] = field(default_factory=list)
    passed_characters: int = 0
    kept: list[tuple[int, ChoiceIncrement]] = field(default_factory=list)
    """What was not passed on yet, and where each ends in ``text``."""


class ToolSplitter:
    """Splits the increments of one attempt; ``begun`` is what another attempt has passed on."""

    def __init__(
        self, request: GenerationRequest, make_reader: Callable[[], ToolReader], begun: Begun | None = None
    ) -> None:
        self._is_named = isinstance(request.tool_choice_in_force, NamedToolChoice)
        self._most_calls = 1 if request.parallel_tool_calls is False else None
        self._make_reader = make_reader
        self._choices: dict[int, _Choice] = {}
        if begun is not None:
            choice = self._choices[0] = _Choice(make_reader(), begun.text, list(begun.token_ids), len(begun.text))
            choice.reader.text_characters(begun.text, begun.token_ids)

    async def split(self, increments: AsyncGenerator[Increment, None]) -> AsyncGenerator[Increment, None]:
        """The increments with text and calls apart; one of which nothing is to be passed on is left out."""
        async with aclosing(increments):
            async for increment in increments:
                choices = tuple(one for new in increment.choices if (one := self._taken(new)) is not None)
                if choices:
                    yield replace(increment, choices=choices)

    def _taken(self, new: ChoiceIncrement) -> ChoiceIncrement | None:
        if (choice := self._choices.get(new.index)) is None:
            choice = self._choices[new.index] = _Choice(self._make_reader())
        choice.text += new.text
        choice.token_ids += new.token_ids
        choice.kept.append((len(choice.text), new))
        surely = choice.reader.text_characters(new.text, new.token_ids)
        if new.finish_reason is not None:
            return self._ended(choice, new.finish_reason, surely)
        # An increment without text may be the beginning of a call: it goes with the next one that has some.
        count = max((at for at, (end, one) in enumerate(choice.kept, 1) if end <= surely and one.text), default=0)
        if not count:
            return None
        passed, choice.kept = choice.kept[:count], choice.kept[count:]
        choice.passed_characters = passed[-1][0]
        return _joined([one for _, one in passed])

    def _ended(self, choice: _Choice, reason: str, surely: int) -> ChoiceIncrement:
        parsed = choice.reader.parsed(choice.text, choice.token_ids)
        calls = parsed.calls[: self._most_calls]
        at = choice.passed_characters
        # A parser may leave out spaces at the end of the text, which were passed on when nobody knew that it is one.
        left = parsed.text[at:] if parsed.text.startswith(choice.text[:at]) else choice.text[at:surely]
        if calls and reason == "stop" and not self._is_named:
            reason = "tool_calls"
        last = _joined([one for _, one in choice.kept])
        return replace(last, text=left, finish_reason=reason, tool_calls=calls or None)


def _joined(pieces: Sequence[ChoiceIncrement]) -> ChoiceIncrement:
    logprobs = [piece.logprobs for piece in pieces if piece.logprobs is not None]
    return replace(
        pieces[-1],
        text="".join(piece.text for piece in pieces),
        token_count=sum(piece.token_count for piece in pieces),
        token_ids=tuple(token_id for piece in pieces for token_id in piece.token_ids),
        logprobs=tuple(chain.from_iterable(logprobs)) if logprobs else None,
    )
