"""How much of a task's memory its guest gets: QEMU itself needs the rest."""

from __future__ import annotations

from pcocc_runtime.errors import RequestError

# MiB QEMU 7.2 needs beside the guest's RAM, measured as the memory cgroup's peak: devices, threads, page tables,
# and for TCG its translation buffer (64 MiB) and the structures around it.
BASE_OVERHEAD = {"kvm": 96, "tcg": 192}
KEEPER_OVERHEAD = 16
SMALLEST_GUEST = 64


def guest_memory(task: int, accel: str) -> int:
    """Return the guest's RAM in MiB for a task of `task` MiB; RequestError when nothing useful remains."""
    overhead = BASE_OVERHEAD[accel] + KEEPER_OVERHEAD + task // 64
    guest = task - overhead
    if guest < SMALLEST_GUEST:
        raise RequestError(
            f"a task of {task} MiB is too small for a VM: QEMU itself needs {overhead} MiB of it",
            hint=f"ask for more memory, for example --mem-per-cpu={overhead + 256}M",
        )
    return guest


def task_memory(environ: dict[str, str], cpus: int) -> int:
    """Return the memory of one task in MiB from SLURM_MEM_PER_CPU or SLURM_MEM_PER_NODE; 0 when Slurm limits none."""
    per_cpu = environ.get("SLURM_MEM_PER_CPU", "")
    if per_cpu.isdigit():
        return int(per_cpu) * cpus
    per_node = environ.get("SLURM_MEM_PER_NODE", "")
    tasks = environ.get("PCOCC_TASKS_HERE", "1")
    if per_node.isdigit():
        return int(per_node) // max(1, int(tasks))
    return 0
