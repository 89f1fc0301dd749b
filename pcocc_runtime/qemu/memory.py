"""How much of a task's memory its guest gets: QEMU itself needs the rest."""

from __future__ import annotations

from pcocc_runtime.errors import RequestError

# MiB QEMU 7.2 needs beside the guest's RAM, measured as the memory cgroup's peak: devices, threads, page
# tables, and for TCG its translation buffer (64 MiB) and the structures around it.
BASE_OVERHEAD = {"kvm": 96, "tcg": 192}
KEEPER_OVERHEAD = 24  # and its ssh
VIRTIOFSD_OVERHEAD = 16  # each
SMALLEST_GUEST = 64


def guest_memory(task: int, accel: str, daemons: int = 0) -> int:
    """Return the guest's RAM in MiB for a task of `task` MiB, in which `daemons` virtiofsd run besides.

    RequestError when nothing useful remains.
    """
    overhead = BASE_OVERHEAD[accel] + KEEPER_OVERHEAD + daemons * VIRTIOFSD_OVERHEAD + task // 64
    guest = task - overhead
    if guest < SMALLEST_GUEST:
        raise RequestError(
            f"a task of {task} MiB is too small for a VM: QEMU itself needs {overhead} MiB of it",
            hint=f"ask for more memory, for example --mem-per-cpu={overhead + 256}M",
        )
    return guest
