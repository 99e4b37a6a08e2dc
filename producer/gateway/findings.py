"""What is wrong with a request's body, by the parameter's name and in words of the API; nothing of pydantic's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from producer.gateway.openai_requests import MOST_PROMPTS
from producer.strict import UNKNOWN_FIELD

UNSUPPORTED: Final = frozenset({"extra_forbidden", UNKNOWN_FIELD})
NO_JSON: Final = "send the body as JSON, with Content-Type: application/json"
"""What web pages send without being asked is not read: a form of theirs has no such type."""
PROMPT: Final = (
    "give a text, a list of texts, a list of token ids, which are whole numbers from 0 on, or a list of such lists; "
    "none of the lists may be empty"
)
TOO_MANY_PROMPTS: Final = f"at most {MOST_PROMPTS:,} prompts in one request; /v1/jobs/bulk takes more"
STOP: Final = "give a string of 1 to 256 characters, or a list of at most 4 such strings"
CONTENT: Final = 'give a text, or a list of parts {"type": "text", "text": "…"}; images, audio and files are not served'

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One of them, where it is in the body."""

    kind: str
    path: Path
    message: str
    given: Any
    is_of_a_union: bool

    @property
    def is_of_another_branch(self) -> bool:
        """Whether it says no more than that the value is of another type than this branch of a union takes."""
        is_literal = self.kind == "literal_error" and not isinstance(self.given, str)
        return self.kind.endswith("_type") or is_literal


def refusal(errors: Sequence[Any], content: Any) -> tuple[str, str, str | None]:  # noqa: ANN401 - whatever JSON held
    """The message, the code and the parameter of what is said of a body with this content."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return f"the body is not JSON: {first['ctx']['error']}", "invalid_json", None
    if tuple(first["loc"]) == ("body",) and isinstance(first["input"], bytes | None):
        return NO_JSON, "invalid_json", None
    finding = _chosen([_finding(error, content) for error in errors])
    if finding.is_of_a_union and (own := _own_words(finding.path, content)) is not None:
        parameter, message = own
        return f"{parameter}: {message}", "invalid_parameter", parameter
    parameter = ".".join(map(str, finding.path))
    if finding.kind == "extra_forbidden":
        return f"unsupported parameter: {parameter!r}", "unsupported_parameter", parameter
    if finding.kind == UNKNOWN_FIELD:
        return finding.message, "unsupported_parameter", parameter
    message = f"{parameter}: {finding.message}" if parameter else finding.message
    return message, "invalid_parameter", parameter or None


def _chosen(findings: Sequence[Finding]) -> Finding:
    first = next((one for one in findings if one.kind in UNSUPPORTED), findings[0])
    beside = [one for one in findings if one.path[: len(first.path)] == first.path]
    return min(beside, key=lambda one: (one.is_of_another_branch, -len(one.path)))


def _finding(error: Mapping[str, Any], content: Any) -> Finding:  # noqa: ANN401 - whatever JSON held
    where, *location = error["loc"]
    kind, message = error["type"], error["msg"].removeprefix("Value error, ")
    if where != "body":
        return Finding(kind, tuple(error["loc"]), message, error["input"], is_of_a_union=False)
    path: list[str | int] = []
    for place, part in enumerate(location):
        is_there = part in content if isinstance(content, Mapping) else isinstance(content, list | tuple)
        is_missing = kind == "missing" and place == len(location) - 1
        if isinstance(part, str) and not (isinstance(content, Mapping) and is_there) and not is_missing:
            continue  # the name of a union's branch: the body has nothing by it
        path.append(part)
        content = content[part] if is_there and not is_missing else None
    is_of_a_union = len(path) < len(location)
    if kind == UNKNOWN_FIELD:
        path.append(error["ctx"]["name"])
    return Finding(kind, tuple(path), message, error["input"], is_of_a_union)


def _own_words(path: Path, content: Any) -> tuple[str, str] | None:  # noqa: ANN401 - whatever JSON held
    """The parameter and the message, where the union's branches together say it better than one of them."""
    match path:
        case ("prompt", *_):
            given = content["prompt"]
            are_too_many = isinstance(given, list) and len(given) > MOST_PROMPTS and isinstance(given[0], str | list)
            return "prompt", TOO_MANY_PROMPTS if are_too_many else PROMPT
        case ("stop", *_):
            return "stop", STOP
        case ("messages", int(turn), "content", int(part), *_):
            return f"messages.{turn}.content.{part}", CONTENT
        case ("messages", int(turn), "content"):
            return f"messages.{turn}.content", CONTENT
    return None
