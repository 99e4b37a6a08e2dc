"""The processes that an engine starts."""

import psutil


def engine_processes(parent_pid: int | None = None) -> set[int]:
    """Process ids of what an engine started; Python's own resource tracker is not one of them."""
    children = psutil.Process(parent_pid).children(recursive=True)
    return {child.pid for child in children if not has_ended(child) and not _is_resource_tracker(child)}


def has_ended(process: psutil.Process) -> bool:
    """Whether it is gone, or only waits for somebody to take note of its end."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _is_resource_tracker(process: psutil.Process) -> bool:
    try:
        return "resource_tracker" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
