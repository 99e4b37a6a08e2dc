"""What the operating system gives: shared memory, open files, cores, ports."""

import resource
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from producer.doctor import Finding
from workers.cpu_cores import usable_cores
from workers.doctor.plan import GIB, Plan, doubtful, failing, fine, gib

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - it is looked at, and nothing is put there
LEAST_SHARED_BYTES: Final = GIB
LEAST_OPEN_FILES: Final = 4096
CORES_PER_GPU_ENGINE: Final = 2
"""One for the worker's Celery and one for its EngineCore."""


def host_findings(plan: Plan, shared_memory: Path = SHARED_MEMORY) -> Iterator[Finding]:
    """One each."""
    yield _shared_memory(plan, shared_memory)
    yield _open_files()
    yield _cores(plan)
    yield from port_findings(plan)


def _shared_memory(plan: Plan, place: Path) -> Finding:
    if not place.is_dir():
        return failing("shared memory", f"{place} is missing: vLLM's processes need it; mount a tmpfs there")
    size_bytes = shutil.disk_usage(place).total
    text = f"{place} holds {gib(size_bytes)}"
    if size_bytes >= LEAST_SHARED_BYTES:
        return fine("shared memory", text)
    remedy = "give the container 2 GiB or more (docker run --shm-size 2g; shm_size in Compose; a Memory emptyDir)"
    if plan.gpus_per_engine > 1:
        return failing("shared memory", f"{text}: an engine over several GPUs ends for lack of it; {remedy}")
    return doubtful("shared memory", f"{text}: an engine may end with a bus error; {remedy}")


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= LEAST_OPEN_FILES:
        return fine("open files", f"{soft} at most")
    return doubtful(
        "open files",
        f"{soft} at most: a gateway with many open streams, or a model of many shards, needs more; ulimit -n 65536 "
        f"(the hard limit is {hard}), or LimitNOFILE in the service's unit",
    )


def _cores(plan: Plan) -> Finding:
    cores, engines = len(usable_cores()), len(plan.engines)
    text = f"{cores}, engines: {engines}"
    if not plan.gpus and cores < engines:
        return failing("cores", f"{text}: each on the CPU needs one of its own; --engines-per-gpu {cores}")
    if plan.gpus and cores < engines * CORES_PER_GPU_ENGINE:
        return doubtful("cores", f"{text}: each keeps two busy, so GPUs wait; take fewer engines, or a larger host")
    return fine("cores", text)


def port_findings(plan: Plan) -> Iterator[Finding]:
    """Whether each could be listened on now."""
    taken = []
    for setting, (host, port) in plan.ports.items():
        if (reason := _refusal(host, port)) is not None:
            taken.append(f"{setting} {port}")
            yield doubtful(
                "port",
                f"{host}:{port} cannot be listened on ({reason}): unless that is this fleet, running, set {setting}",
            )
    if not taken:
        yield fine("ports", ", ".join(str(port) for _, port in plan.ports.values()) + " are free")


def _refusal(host: str, port: int) -> str | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return None
