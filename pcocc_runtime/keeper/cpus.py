"""Each vCPU's thread on a CPU of its own."""

from __future__ import annotations

import os


def bind(pid: int, vcpus: list[int], cpus: list[int], emulator: list[int]) -> None:
    """Give each vCPU's thread the CPU planned for it by the launcher, and QEMU's others those of `emulator`, if any.

    Only where there is one for each, and the task may still run on all of them: `scontrol update` can take some away.
    """
    try:
        if len(cpus) != len(vcpus) or not {*cpus, *emulator} <= os.sched_getaffinity(pid):
            return
        for thread in [int(name) for name in os.listdir(f"/proc/{pid}/task")] if emulator else ():
            os.sched_setaffinity(thread, emulator)
        for thread, cpu in zip(vcpus, cpus, strict=True):
            os.sched_setaffinity(thread, {cpu})
    except OSError:
        pass  # QEMU is gone, or a thread of it
