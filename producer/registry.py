"""The models that the fleet takes jobs for (``fleet:models``), and how many of theirs may wait (``fleet:limits``)."""

from collections.abc import Mapping, Sequence
from typing import Final

import orjson
from pydantic import TypeAdapter, ValidationError

from producer import keys
from producer.errors import InvalidRequest
from producer.jobs import ModelDeclaration
from producer.prompting import Name
from producer.script import Script, ScriptRun

ALIAS_SCRIPT: Final = Script.named("alias")

MOST_WAITING: Final = 2_000_000
"""Jobs of a model that may wait unless it has a limit of its own, or none; as in ``enqueue.lua``."""
NO_LIMIT: Final = "none"

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


def read_aliases(entries: Mapping[bytes, bytes]) -> dict[str, str]:
    """The hash of models' other names."""
    return {alias.decode(): model.decode() for alias, model in sorted(entries.items())}


def alias_run(alias: str, model: str, *, may_move: bool) -> ScriptRun:
    """The script run that gives a model another name; ``may_move``: also one that another model has."""
    return ScriptRun(ALIAS_SCRIPT, (keys.MODELS, keys.ALIASES, keys.ADAPTERS), (alias, model, int(may_move)))


def adapter_run(adapter: str, model: str) -> ScriptRun:
    """The same, of an adapter that a worker of the model has; it takes no name that is another model's."""
    return ScriptRun(ALIAS_SCRIPT, (keys.MODELS, keys.ADAPTERS, keys.ALIASES), (adapter, model, 0))


def refuse_alias(alias: str, model: str, reply: Sequence[bytes], what: str = "alias") -> None:
    """Return if the alias script gave the name.

    Raises:
        InvalidRequest: it did not; the sentence says why.
    """
    match [part.decode() for part in reply]:
        case ["is_model"]:
            raise InvalidRequest(f"{what} {alias!r}: a model has this name itself; see: fleet models list")
        case ["unknown_model"]:
            raise InvalidRequest(f"{what} {alias!r}: model {model!r} is not known; first: fleet models declare {model}")
        case ["taken", other]:
            raise InvalidRequest(
                f"{what} {alias!r} is another name of {other!r}; move it: fleet models alias {alias} {model}"
                if what == "alias"
                else f"{what} {alias!r} is one of {other!r} already; first: fleet models unalias {alias}"
            )
        case ["taken_otherwise", other]:
            raise InvalidRequest(
                f"{what} {alias!r}: {other!r} has an adapter or alias of this name; first: fleet models unalias {alias}"
            )


def checked_limit(max_waiting_jobs: int | None) -> int | None:
    """The limit, if a queue may have it.

    Raises:
        InvalidRequest: it is negative, or no whole number.
    """
    is_number = isinstance(max_waiting_jobs, int) and not isinstance(max_waiting_jobs, bool)
    if max_waiting_jobs is None or (is_number and max_waiting_jobs >= 0):
        return max_waiting_jobs
    raise InvalidRequest(f"max_waiting_jobs: a whole number of jobs, or None for no limit; not {max_waiting_jobs!r}")


def encoded_limit(max_waiting_jobs: int | None) -> str:
    """The hash's value for one model."""
    return NO_LIMIT if max_waiting_jobs is None else str(max_waiting_jobs)


def read_limits(entries: Mapping[bytes, bytes]) -> dict[str, int | None]:
    """The hash of limits, by model name; None for a model that was given none."""
    return {
        name.decode(): None if value.decode() == NO_LIMIT else int(value) for name, value in sorted(entries.items())
    }
