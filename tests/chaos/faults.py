"""The faults by name. Each is done to a running stand, returns when it is over, and says whom it struck."""

import random
import signal
from collections.abc import Callable, Mapping
from typing import Final

import psutil

from tests.chaos.fleet_worker import FleetWorker, is_gone
from tests.chaos.servers import LOST_SECONDS, PowerLossServer, SmallDiskServer
from tests.chaos.stand import Stand, Worker
from tests.chaos.surroundings import NotHere, memory_group

GONE_SECONDS: Final = 30.0
HANG_NOTICED_SECONDS: Final = 120.0
TAKEN_MEMORY_BYTES: Final = 1024 * 1024
KILLS_PER_PASS: Final = 6
"""A producer is killed before it has submitted this part of its jobs."""
LOSS_MARGIN_SECONDS: Final = 0.2
"""Two clocks and the reading of a file's length."""

Fault = Callable[[Stand, random.Random], str]


def worker_sigkill(stand: Stand, rng: random.Random) -> str:
    """Kill -9 of a worker process that holds jobs."""
    worker, process = _struck(stand, rng)
    since = stand.server_seconds()
    process.kill()
    _note_loss(stand, "worker_sigkill", worker, process, since)
    return worker.node


def out_of_memory(stand: Stand, rng: random.Random) -> str:
    """The kernel kills a worker that takes more memory than its cgroup may."""
    worker, process = _struck(stand, rng)
    with memory_group(f"chaos-{process.pid}") as group:
        group.take_in(process.pid, TAKEN_MEMORY_BYTES)
        stand.until(lambda: is_gone(process), what="the kernel kills a worker")
        since = stand.server_seconds()
        _note_loss(stand, "out_of_memory", worker, process, since)
        stand.until(lambda: group.kills == 1, what="the kernel counts its kill", seconds=GONE_SECONDS)
    return worker.node


def engine_core_sigkill(stand: Stand, rng: random.Random) -> str:
    """Kill -9 of the engine's process under a living worker."""
    worker = _fleet_worker(stand, rng)
    core = worker.core()
    if core is not None:
        leases, since = stand.held_by(worker), stand.server_seconds()
        core.kill()
        stand.redelivery.watch("engine_core_sigkill", leases, since)
    return worker.node


def engine_hang(stand: Stand, rng: random.Random) -> str:
    """The engine's process stands still for good (SIGSTOP): its worker must notice, and end."""
    worker = _fleet_worker(stand, rng)
    process, core = worker.process(), worker.core()
    if process is None or core is None:
        return worker.node
    leases, since = stand.held_by(worker), stand.server_seconds()
    core.suspend()
    stand.redelivery.watch("engine_hang", leases, since)
    stand.until(lambda: is_gone(process), what="the worker of a hung engine ends", seconds=HANG_NOTICED_SECONDS)
    return worker.node


def worker_sigstop(stand: Stand, rng: random.Random) -> str:
    """A worker process stands still for longer than a lease, then goes on with what others have taken over."""
    worker, process = _struck(stand, rng)
    since = stand.server_seconds()
    process.suspend()
    stand.redelivery.watch("worker_sigstop", stand.held_by(worker), since)
    stand.pause(stand.scenario.lease_seconds + rng.uniform(1.0, 3.0))
    process.resume()
    return worker.node


def worker_sigterm(stand: Stand, rng: random.Random) -> str:
    """An orderly end that leaves no time for what runs: it is handed back."""
    worker, process = _struck(stand, rng)
    leases, since = stand.held_by(worker), stand.server_seconds()
    process.terminate()
    stand.redelivery.watch("worker_sigterm", leases, since)
    stand.until(lambda: is_gone(process), what="a worker ends after SIGTERM")
    return worker.node


def supervisor_kill(stand: Stand, rng: random.Random) -> str:
    """Kill -9 of a supervisor; its worker must not outlive it for long, and somebody starts another one."""
    worker, process = _struck(stand, rng)
    if not isinstance(worker, FleetWorker):
        raise NotHere("stock Celery has no supervisor")
    leases, since = stand.held_by(worker), stand.server_seconds()
    worker.supervisor.send_signal(signal.SIGKILL)
    stand.redelivery.watch("supervisor_kill", leases, since)
    stand.until(lambda: is_gone(process), what="the worker of a killed supervisor ends")
    worker.restart_supervisor()
    return worker.node


def redis_sigkill(stand: Stand, rng: random.Random) -> str:
    """Kill -9 of the server, which is away for a moment."""
    stand.victim(rng)
    stand.server.kill()
    stand.pause(rng.uniform(0.2, 3.0))
    stand.server.start()
    return "the server"


def redis_power_loss(stand: Stand, rng: random.Random) -> str:
    """The server's machine fails: the last second of its append-only file is gone."""
    stand.victim(rng)
    if not isinstance(stand.server, PowerLossServer):
        raise NotHere("only the scenario redis_power_loss has a server that can lose its power")
    now = stand.server_seconds()
    stand.server.lose_power()
    stand.note_loss_window(now - LOST_SECONDS - LOSS_MARGIN_SECONDS, now + LOSS_MARGIN_SECONDS)
    stand.pause(rng.uniform(0.2, 3.0))
    stand.server.start()
    return "the server's machine"


def redis_connection_cut(stand: Stand, rng: random.Random) -> str:
    """One worker cannot reach the server, at times for longer than a lease."""
    worker = _fleet_worker(stand, rng)
    if worker.proxy is not None:
        worker.proxy.cut()
        stand.pause(rng.uniform(0.5, stand.scenario.lease_seconds + 2.0))
        worker.proxy.mend()
    return worker.node


def redis_delay(stand: Stand, rng: random.Random) -> str:
    """One worker's way to the server becomes slow: each piece of data takes up to half a second."""
    worker = _fleet_worker(stand, rng)
    if worker.proxy is not None:
        worker.proxy.delay(rng.uniform(0.05, 0.5))
        stand.pause(rng.uniform(3.0, 8.0))
        worker.proxy.mend()
    return worker.node


def producer_kill(stand: Stand, rng: random.Random) -> str:
    """Kill -9 of the submitting process between two jobs or in one; the next submits all of them again."""
    lines = stand.submitting.lines + rng.randint(1, stand.scenario.jobs // KILLS_PER_PASS)
    stand.until(lambda: stand.submitting.lines >= lines, what="the producer submits")
    stand.submitting.kill()
    stand.submitting.start()
    return "the producer"


def disk_full(stand: Stand, rng: random.Random) -> str:
    """The disk of the append-only file is full for some seconds: the server refuses to write."""
    stand.victim(rng)
    server = stand.server
    if not isinstance(server, SmallDiskServer):
        raise NotHere("only the scenario disk_full has a server on a small disk")
    server.fill()
    stand.until(lambda: server.append_fails(stand.client), what="the server finds its disk full")
    stand.pause(rng.uniform(1.0, 6.0))
    server.make_room()
    stand.until(lambda: not server.append_fails(stand.client), what="the server writes again")
    return "the server's disk"


FAULTS: Final[Mapping[str, Fault]] = {
    fault.__name__: fault
    for fault in (
        worker_sigkill,
        out_of_memory,
        engine_core_sigkill,
        engine_hang,
        worker_sigstop,
        worker_sigterm,
        supervisor_kill,
        redis_sigkill,
        redis_power_loss,
        redis_connection_cut,
        redis_delay,
        producer_kill,
        disk_full,
    )
}


def _struck(stand: Stand, rng: random.Random) -> tuple[Worker, psutil.Process]:
    """A victim and its process, both alive a moment ago."""
    while True:
        worker = stand.victim(rng)
        process = worker.process()
        if process is not None:
            return worker, process


def _fleet_worker(stand: Stand, rng: random.Random) -> FleetWorker:
    worker = stand.victim(rng)
    if not isinstance(worker, FleetWorker):
        raise NotHere("stock Celery has neither an engine nor a proxy")
    return worker


def _note_loss(stand: Stand, fault: str, worker: Worker, process: psutil.Process, since: float) -> None:
    """The worker is dead: what it holds now it held when it died."""
    stand.until(lambda: is_gone(process), what="a killed worker is gone", seconds=GONE_SECONDS)
    stand.watch_killed(fault, worker, since)
