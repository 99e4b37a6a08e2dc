"""``python -m workers.bench.drivers NAME FOLDER``: a driver's process.

JSON lines on stdin: the target first, then one :class:`~workers.bench.load.Load` per pass. Each is answered with a line
on what was stdout: ``{"ready": true}``, ``{"pass": …}`` or ``{"error": …}``. Everything printed goes to stderr. It ends
with its stdin, on SIGTERM, or with its parent, and stops the driver in any case.
"""

import dataclasses
import importlib
import json
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from workers.bench.drivers import KINDS
from workers.bench.drivers.base import Driver
from workers.bench.load import Load
from workers.bench.target import EngineTarget
from workers.parent import answers_to_parent, end_with_parent


def main() -> int:
    """Serve passes until told to stop."""
    name, folder = sys.argv[1:]
    answers = answers_to_parent()
    end_with_parent(None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    requests = (json.loads(line) for line in sys.stdin)
    driver = driver_class(name)(EngineTarget(**next(requests)), Path(folder))
    with answering_errors(answers):
        try:
            driver.start()
            answer(answers, {"ready": True})
            for request in requests:
                answer(answers, {"pass": measured(driver, Load.parsed(request))})
        finally:
            driver.stop()
    return 0


def driver_class(name: str) -> type[Driver]:
    """The class of the driver of this name."""
    module, _, attribute = KINDS[name].location.partition(":")
    found: type[Driver] = getattr(importlib.import_module(module), attribute)
    return found


def measured(driver: Driver, load: Load) -> dict[str, Any]:
    """One pass with the CPU time that it took."""
    before = driver.cpu_seconds()
    done = driver.run(load)
    after = driver.cpu_seconds()
    done.cpu_seconds = {part: round(after[part] - before.get(part, 0.0), 6) for part in after}
    return dataclasses.asdict(done)


def answer(answers: TextIO, content: dict[str, Any]) -> None:
    """Send one line."""
    answers.write(json.dumps(content) + "\n")


@contextmanager
def answering_errors(answers: TextIO) -> Iterator[None]:
    """Tell the parent why this process ends."""
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        answer(answers, {"error": f"{type(error).__name__}: {error}"})
        raise SystemExit(1) from error


if __name__ == "__main__":
    sys.exit(main())
