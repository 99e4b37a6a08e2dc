"""What we add to the processes that vLLM starts: they end with the worker, and say why when they fail.

vLLM calls :func:`register` in each of its processes (entry point group ``vllm.general_plugins``). It does nothing in
the worker itself. Without it an EngineCore whose worker was killed would keep its GPU memory for ever. (Killed before
EngineCore has greeted it, the worker leaves a process without a model, which vLLM ends itself after five minutes.)
"""

import logging
import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Final

from workers.engine.vllm_failure import cause_in_one_line

FAILURE_FILE_VARIABLE: Final = "FLEET_ENGINE_FAILURE_FILE"
"""Names the file to which a process appends why it ends; set by the worker while it starts one."""

START_METHOD_VARIABLE: Final = "VLLM_WORKER_MULTIPROC_METHOD"

ENGINE_CORE: Final = "EngineCore"
"""How vLLM's engine process is named; its own workers already end when it does."""

LAST_WORDS: Final = ("failed to start", "encountered a fatal error", "hit an exception")
"""What vLLM logs, with the exception, in a process that does not come up, or ends while it runs."""
LAST_WORDS_LOGGERS: Final = ("vllm.v1.engine.core", "vllm.v1.executor.multiproc_executor")
"""Who logs it."""


def register() -> None:
    """Tie this process to its parent and report why it ends; does nothing in a process that is not an engine's."""
    path = os.environ.get(FAILURE_FILE_VARIABLE)
    if path is None or multiprocessing.parent_process() is None:
        return
    if multiprocessing.current_process().name.startswith(ENGINE_CORE):
        threading.Thread(target=_end_with_parent, name="end-with-worker", daemon=True).start()
    for name in LAST_WORDS_LOGGERS:
        logging.getLogger(name).addFilter(LastWordsReporter(Path(path)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)  # a clean end could wait for work that nobody will collect


class LastWordsReporter(logging.Filter):
    """Appends the cause of a process' end to a file, one line per process, the first to fail first.

    A filter: vLLM configures logging anew in each of its workers, which takes handlers away.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def filter(self, record: logging.LogRecord) -> bool:
        """Write the cause if this record is a process' last words; hold nothing back."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and any(words in record.getMessage() for words in LAST_WORDS):
            with self._path.open("a", encoding="utf-8") as file:
                file.write(cause_in_one_line(error) + "\n")
        return True
