"""Tool calls as vLLM's own server has them: its parser, its shapes of forced answers, its way to show tools.

For vLLM 0.26 up to 0.33, whose ``ParserManager`` gives one class per tool parser, all with the same three methods:
``adjust_request`` (what the engine has to hold to), ``parse_delta`` and ``parse``.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from producer.contract import GenerationRequest
from producer.strict import unknown_name
from workers.engine.base import Begun, EngineOptionsInvalid, GenerationFailed
from workers.engine.tool_calls import (
    ForcedReader,
    Parsed,
    ToolSplitter,
    call,
    forced_schema,
    is_forced,
    may_call,
    refuse_without_parser,
)
from workers.engine.vllm_failure import cause_in_one_line

if TYPE_CHECKING:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.parser.abstract_parser import Parser
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

log = logging.getLogger(__name__)


def parser_class(name: str) -> "type[Parser] | None":
    """The parser of this name; None where no name is given.

    Raises:
        EngineOptionsInvalid: it has none of this name, or it can not be loaded.
    """
    if not name:
        return None
    from vllm.parser.parser_manager import ParserManager
    from vllm.tool_parsers import ToolParserManager

    known = ToolParserManager.list_registered()
    if name not in known:
        raise EngineOptionsInvalid(unknown_name("tool_call_parser", name, dict.fromkeys(known)))
    try:
        found: type[Parser] | None = ParserManager.get_parser(tool_parser_name=name, enable_auto_tools=True)
    except Exception as error:
        raise EngineOptionsInvalid(f"tool_call_parser {name!r}: {cause_in_one_line(error)}") from error
    return found


def messages_of(request: GenerationRequest) -> list[dict[str, Any]]:
    """The messages as vLLM's renderers and parsers take them."""
    return [message.model_dump(exclude_none=True, mode="json") for message in request.messages or ()]


def shown_tools(request: GenerationRequest) -> list[dict[str, Any]] | None:
    """The tools as the chat template gets them from vLLM's server; None without any."""
    if request.tools is None:
        return None
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionToolsParam

    given = (tool.model_dump(exclude_none=True) for tool in request.tools)
    return [ChatCompletionToolsParam.model_validate(tool).model_dump() for tool in given]


def plain_choice(request: GenerationRequest) -> str | dict[str, Any]:
    """The tool choice in force as OpenAI's API has it."""
    choice = request.tool_choice_in_force
    return choice if isinstance(choice, str) else choice.model_dump()


def _held_to(request: GenerationRequest) -> list[dict[str, Any]]:
    # What is forced holds to the schemas here, with a parser or without; vLLM does so only for tools that are strict.
    default = {"strict": True} if is_forced(request) else {}
    given = [tool.model_dump(exclude_none=True) for tool in request.tools or ()]
    return [tool | {"function": default | tool["function"]} for tool in given]


class VllmTools:
    """How one engine's model calls tools."""

    def __init__(self, llm: "AsyncLLM", parser_name: str) -> None:
        self._llm = llm
        self._name = parser_name
        self._parser = parser_class(parser_name)
        if self._parser is not None:
            try:
                self._parser(self._tokenizer)
            except Exception as error:
                sentence = f"tool_call_parser {parser_name!r} does not fit this model: {cause_in_one_line(error)}"
                raise EngineOptionsInvalid(sentence) from error

    @property
    def _tokenizer(self) -> Any:  # noqa: ANN401 - vLLM's
        return self._llm.renderer.tokenizer

    def job(self, request: GenerationRequest, params: "SamplingParams") -> "ToolJob | None":
        """How to read this request's calls; changes ``params`` so that they can be. None where it may have none.

        Raises:
            RequestRejected: it may have some, and nobody could read them.
            Exception: whatever vLLM raises for tools that it can not take.
        """
        if not may_call(request):
            return None
        if self._parser is None:
            if not is_forced(request):
                refuse_without_parser()
            from vllm.sampling_params import StructuredOutputsParams

            params.structured_outputs = StructuredOutputsParams(json=forced_schema(request))
            return ToolJob(request)
        adjusted = self._asked(request, params)
        tools: Any = adjusted.tools
        parser = partial(self._parser, self._tokenizer, tools, model_config=self._llm.model_config)
        adjusted = cast("ChatCompletionRequest", parser().adjust_request(request=adjusted))
        params.skip_special_tokens = adjusted.skip_special_tokens
        params.spaces_between_special_tokens = adjusted.spaces_between_special_tokens
        params.structured_outputs = adjusted.structured_outputs
        return ToolJob(request, VllmReading(self._name, parser, adjusted))

    def _asked(self, request: GenerationRequest, params: "SamplingParams") -> "ChatCompletionRequest":
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

        return ChatCompletionRequest.model_validate(
            {
                "model": request.model,
                "messages": messages_of(request),
                "tools": _held_to(request),
                "tool_choice": plain_choice(request),
                "parallel_tool_calls": request.parallel_tool_calls is not False,
                "skip_special_tokens": params.skip_special_tokens,
            }
        )


@dataclass(frozen=True, slots=True)
class VllmReading:
    """What the readers of one job share."""

    name: str
    make_parser: "partial[Parser]"
    asked: "ChatCompletionRequest"
    """As the parser adjusted it."""


@dataclass(frozen=True, slots=True)
class ToolJob:
    """One job that may call tools."""

    request: GenerationRequest
    reading: VllmReading | None = None
    """None: what was written is JSON by :func:`workers.engine.tool_calls.forced_schema`."""

    def splitter(self, prompt_token_ids: Sequence[int], begun: Begun | None) -> ToolSplitter:
        """Splits an attempt's increments; ``begun`` has the tokens that it really goes on from."""
        if self.reading is None:
            return ToolSplitter(self.request, partial(ForcedReader, self.request), begun)
        make_reader = partial(ParserReader, self.reading, list(prompt_token_ids), is_forced=is_forced(self.request))
        return ToolSplitter(self.request, make_reader, begun)


@dataclass(slots=True)
class ParserReader:
    """Reads one choice with vLLM's parser."""

    reading: VllmReading
    prompt_token_ids: list[int]
    is_forced: bool
    _streaming: "Parser | None" = None
    """Follows the choice while it is written; a whole one is parsed by another."""
    _written: str = ""
    _text: str = ""
    """What the parser said is text; always a beginning of what was written."""
    _has_call: bool = False
    """The parser said that one has begun."""
    _is_done: bool = False
    """Nothing more surely is text: a call has begun, or the parser changes what was written."""

    def text_characters(self, text: str, token_ids: Sequence[int]) -> int:
        """See :class:`workers.engine.tool_calls.ToolReader`."""
        self._written += text
        if self.is_forced or self._is_done:
            return len(self._text)
        try:
            self._follow(text, list(token_ids))
        except Exception as error:  # noqa: BLE001 - whatever a parser raises; the whole choice is parsed at its end
            self._is_done = True
            log.warning("%s: %s", self.reading.name, cause_in_one_line(error), extra={"action": "tool_parser_failed"})
        return len(self._text)

    def _follow(self, text: str, token_ids: list[int]) -> None:
        if self._streaming is None:
            self._streaming = self.reading.make_parser()
        said = self._streaming.parse_delta(
            text, token_ids, self.reading.asked, prompt_token_ids=self.prompt_token_ids, finished=False
        )
        if said is None:
            return
        longer = self._text + (said.content or "")
        if self._written.startswith(longer):
            self._text = longer
        else:
            self._is_done = True
        self._has_call = self._has_call or bool(said.tool_calls)
        self._is_done = self._is_done or self._has_call

    def parsed(self, text: str, token_ids: Sequence[int]) -> Parsed:
        """See :class:`workers.engine.tool_calls.ToolReader`.

        Raises:
            GenerationFailed: the parser broke.
        """
        try:
            _, content, calls = self.reading.make_parser().parse(
                text, self.reading.asked, enable_auto_tools=True, model_output_token_ids=list(token_ids)
            )
        except Exception as error:
            sentence = f"the parser {self.reading.name!r} could not read the answer: {cause_in_one_line(error)}"
            raise GenerationFailed(sentence) from error
        found = [call(one.name, one.arguments, one.id) for one in calls or ()]
        if self.is_forced:
            return Parsed("", tuple(found))
        # Some parsers give a call that was cut off back as text, and its markup with it.
        return Parsed(self._text if self._has_call and not found else content or "", tuple(found))
