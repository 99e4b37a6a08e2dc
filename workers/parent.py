"""A process that does not outlive the one that started it."""

import ctypes
import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Final, TextIO

PR_SET_PDEATHSIG: Final = 1
OPTION: Final = "--parent"


def parent_arguments() -> Sequence[str]:
    """What this process adds to the command line of one that it starts."""
    return (OPTION, str(os.getpid()))


def add_parent_option(parser: ArgumentParser) -> None:
    """The other side of :func:`parent_arguments`: ``parent`` in what the parser returns."""
    parser.add_argument(OPTION, type=int, help="id of the process that starts this one, which ends with it")


def answers_to_parent() -> TextIO:
    """Our stdout for answers alone, a line each: what libraries print there goes to stderr from now on."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def end_with_parent(parent: int | None) -> None:
    """Ask the kernel for SIGTERM when the parent ends, so that a killed supervisor leaves nothing behind.

    Ends this process at once when ``parent`` is not its parent any more: it died before the kernel was asked.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        sys.exit(f"process {parent}, which started this one, is gone")
