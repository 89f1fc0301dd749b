"""From `srun` typed to QEMU's exec, and what that takes on a node."""

from __future__ import annotations

from tests.bench.events import Life, ProcessEvents
from tests.bench.figures import Figure, median
from tests.boot.box import Box
from tests.waiting import wait_for

_QEMU = r"qemu-system-\S+ -name guest=job"
_HELPER = r"libexec/pcocc/node setup"
_LAUNCH = r"libexec/pcocc/launch"
_TYPED = r"^srun --pcocc-template="


def _run(box: Box, vms: int, *options: str) -> ProcessEvents:
    """Record the processes of one srun that boots so many VMs.

    The job before has left the nodes by then: otherwise srun would wait for them.
    """
    wait_for(lambda: not box.jobs(name="") and set(box.node_states().split()) == {"idle"}, "idle nodes", 60)
    with ProcessEvents() as events:
        box.run(["srun", f"--pcocc-template=tiny:{vms}", *options, "true"], status=0, timeout=180)
    assert not events.lost, "the kernel dropped process events"
    return events


def _exec_times(events: ProcessEvents) -> list[float]:
    """Return the seconds from srun's exec to that of each QEMU."""
    begin = min(life.find_exec(_TYPED)[0] for life in events.find(_TYPED))  # type: ignore[index]
    return sorted((life.find_exec(_QEMU)[0] - begin) / 1e9 for life in events.find(_QEMU))  # type: ignore[index]


def measure(box: Box, rounds: int) -> list[Figure]:
    """The last QEMU's exec for one VM and for eight on two nodes."""
    found = []
    for vms, options, asked in ((1, (), "1.0 s"), (8, ("-N2",), "1.5 s")):
        times = []
        for _ in range(rounds):
            every = _exec_times(_run(box, vms, *options))
            assert len(every) == vms, every
            times.append(every[-1])
        what = f"`srun --pcocc-template=tiny:{vms}{' -N2' if options else ''}` typed to the last QEMU's exec"
        spread = f"{min(times):.2f} to {max(times):.2f} s in {rounds} runs"
        found.append(Figure(what, f"{median(times):.2f} s", spread, asked))
    return found


def _cpu_to_exec(life: Life) -> float:
    exec_ = life.find_exec(_QEMU)
    return exec_[2] / 1e9 if exec_ else 0.0


def measure_node(box: Box, rounds: int) -> list[Figure]:
    """Eight VMs on one node: helpers, their wall time, and CPU from the task's start to QEMU's exec."""
    walls, cpus, helpers = [], [], 0
    for _ in range(rounds):
        events = _run(box, 8, "-N1", "-w", "n1")
        setups = events.find(_HELPER)
        helpers = max(helpers, len(setups))
        walls.append(max((life.ended - life.find_exec(_HELPER)[0]) / 1e9 for life in setups))  # type: ignore[index]
        qemus = events.find(_QEMU)
        cpus.append(sum(map(_cpu_to_exec, qemus)) / len(qemus))
    return [
        Figure(
            "root's helper for 8 VMs on a node", f"{median(walls):.2f} s wall", f"{helpers} process per node",
            "0.5 s, 1 process",
        ),
        Figure("CPU of a VM's task until QEMU's exec", f"{median(cpus):.2f} s", "8 VMs on a node", "0.35 s"),
    ]
