"""GPUs, their driver, and who else is on them."""

from collections.abc import Iterator, Sequence
from typing import Final

from producer.doctor import Finding
from workers.doctor.nvidia import Gpu, GpuProcess, chosen
from workers.doctor.plan import Plan, doubtful, failing, fine, gib

OLDEST_CAPABILITY: Final = (7, 5)
"""Turing: what torch's builds for CUDA 13 still have kernels for."""
BF16_CAPABILITY: Final = (8, 0)
FP8_CAPABILITY: Final = (8, 9)
FREE_ENOUGH: Final = 512 * 1024**2
"""Bytes that a GPU's own display and driver may hold."""


def gpu_findings(plan: Plan, gpus: Sequence[Gpu] | None, processes: Sequence[GpuProcess]) -> Iterator[Finding]:
    """One for the driver, and two for each GPU that is to be used."""
    if gpus is None:
        yield fine("gpus", "none that is used: engines run on the CPU")
        return
    if not gpus:
        yield failing("gpus", "the driver shows no GPU: look at nvidia-smi -L, and give the container its GPUs")
        return
    used = chosen(gpus, plan.gpus)
    yield fine("driver", f"{gpus[0].driver}; GPUs: {len(gpus)}, in use: {len(used)}, engines: {len(plan.engines)}")
    if not used:
        yield doubtful("gpus", "none is used: worker.gpus (--gpus) or CUDA_VISIBLE_DEVICES says so; --gpus all")
    for gpu in used:
        yield _fitness(plan, gpu)
        yield _company(plan, gpu, [process for process in processes if process.gpu_uuid == gpu.uuid])


def _fitness(plan: Plan, gpu: Gpu) -> Finding:
    subject = f"gpu {gpu.index}"
    capability = "{}.{}".format(*gpu.compute_capability)
    text = f"{gpu.name}, {gib(gpu.total_bytes)}, compute capability {capability}"
    if gpu.compute_capability == (0, 0):
        return doubtful(subject, f"{gpu.name}: the driver is too old to tell the compute capability; update it")
    if gpu.compute_capability < OLDEST_CAPABILITY:
        return failing(subject, f"{text}: vLLM needs 7.5 or more; leave this GPU out with --gpus, or use --gpus none")
    if plan.wants_fp8 and gpu.compute_capability < FP8_CAPABILITY:
        return doubtful(
            subject,
            f"{text}: GPUs compute FP8 from 8.9 (Ada, Hopper) on, so this is slow here if it starts at all; an AWQ or "
            "GPTQ model fits better",
        )
    if gpu.compute_capability < BF16_CAPABILITY:
        return doubtful(subject, f"{text}: no bfloat16 before 8.0; set engine.options.dtype=half")
    return fine(subject, text)


def _company(plan: Plan, gpu: Gpu, processes: Sequence[GpuProcess]) -> Finding:
    subject = f"gpu {gpu.index} memory"
    text = f"{gib(gpu.free_bytes)} of {gib(gpu.total_bytes)} free"
    if gpu.used_bytes <= FREE_ENOUGH:
        return fine(subject, text)
    who = ", ".join(f"{process.name} (pid {process.pid}, {gib(process.used_bytes)})" for process in processes)
    held = f"{text}, held by {who or 'a process that this one may not see'}"
    if gpu.free_bytes < plan.utilization * gpu.total_bytes:
        return doubtful(
            subject,
            f"{held}: unless that is this fleet's worker, none starts while less than gpu_memory_utilization "
            f"({plan.utilization:g}) is free; end it, lower engine.options.gpu_memory_utilization, or name other GPUs",
        )
    return fine(subject, held)
