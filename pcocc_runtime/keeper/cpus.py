"""Each vCPU's thread on a CPU of its own."""

from __future__ import annotations

import os


def bind(pid: int, vcpus: list[int], cpus: list[int], emulator: list[int]) -> None:
    """Give each vCPU's thread the CPU that the launcher has planned for it, and QEMU's other threads those of
    `emulator`, if there are any: its main thread, those of disks, and the kernel's for its networks (vhost).

    Without CPUs in `emulator`, the others keep all CPUs of the task, so that they disturb all vCPUs alike. Nothing
    is done unless there is a CPU for each vCPU, and the task may still run on all: `scontrol update` can take some.
    """
    try:
        if len(cpus) != len(vcpus) or not {*cpus, *emulator} <= os.sched_getaffinity(pid):
            return
        done: set[int] = set()
        while emulator and (new := {int(name) for name in os.listdir(f"/proc/{pid}/task")} - done):
            for thread in new:  # a thread that one of them starts before it is moved is found by the next look
                _move(thread, emulator)
            done |= new
        for thread, cpu in zip(vcpus, cpus, strict=True):
            os.sched_setaffinity(thread, {cpu})
    except OSError:
        pass  # QEMU is gone, or a thread of a vCPU


def _move(thread: int, cpus: list[int]) -> None:
    try:
        os.sched_setaffinity(thread, cpus)
    except ProcessLookupError:
        pass  # it has ended: a thread for disks does so when it has nothing to do
