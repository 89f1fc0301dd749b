"""Each vCPU's thread on a CPU of its own."""

from __future__ import annotations

import os


def bind(pid: int, vcpus: list[int], emulator_cores: int) -> None:
    """Give each vCPU's thread a CPU of its own, and QEMU's others the first `emulator_cores`.

    Only where the task has exactly as many CPUs as that takes: where Slurm does not confine tasks they are shared.
    """
    try:
        own = sorted(os.sched_getaffinity(pid))
        if len(own) != len(vcpus) + emulator_cores:
            return
        for thread in [int(name) for name in os.listdir(f"/proc/{pid}/task")] if emulator_cores else ():
            os.sched_setaffinity(thread, own[:emulator_cores])
        for thread, cpu in zip(vcpus, own[emulator_cores:], strict=True):
            os.sched_setaffinity(thread, {cpu})
    except OSError:
        pass  # QEMU is gone, or a thread of it
