"""Which formatter a process writes with."""

from collections.abc import Mapping
from logging import Formatter

from producer.errors import InvalidRequest
from producer.logs.lines import ConsoleLines
from producer.logs.options import LogOptions


def formatter_of(options: LogOptions, fixed: Mapping[str, str]) -> Formatter:
    """For these options; ``fixed`` is the same in every line of this process, as JSON.

    Raises:
        InvalidRequest: the package that writes JSON is not installed.
    """
    if not options.is_json:
        return ConsoleLines()
    try:
        from producer.logs.json_lines import JsonLines
    except ImportError as error:
        raise InvalidRequest(
            f"log.format json: a package is missing ({error.name}): pip install 'inference-fleet-producer[gateway]'"
        ) from error
    return JsonLines(fixed)
