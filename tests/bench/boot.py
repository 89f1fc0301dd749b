"""A whole boot against the same QEMU by hand, and what stays resident beside the VMs."""

from __future__ import annotations

import time

from tests.bench import byhand, resident
from tests.bench.figures import Figure, median
from tests.bench.plain import SSH
from tests.boot.box import Box
from tests.boot.cluster import make_cluster


def measure(box: Box, rounds: int) -> list[Figure]:
    """`srun --pcocc-template=tiny true` in alternation with the same command line by hand until its ssh answers."""
    with make_cluster(box, "--pcocc-template=tiny:1", "-w", "n1") as cluster:
        ssh = [*SSH, "-i", f"/run/pcocc/{cluster.job}/key", "alice@10.200.0.1", "true"]
        kept = byhand.keep(box, cluster.job, ssh)
    ours, theirs = [], []
    for _ in range(rounds):
        begin = time.monotonic()
        box.run("srun -w n1 --pcocc-template=tiny true", status=0, timeout=120)
        ours.append(time.monotonic() - begin)
        theirs.append(byhand.boot(box, kept)[1])
    ratio = median(ours) / median(theirs)
    return [
        Figure(
            f"`srun --pcocc-template=tiny true`, {rounds} runs", f"ratio {ratio:.2f} ({median(ours):.1f} s)",
            f"the same QEMU by hand until ssh answers {median(theirs):.1f} s", "1.15",
        )
    ]  # fmt: skip


def measure_memory(box: Box, rounds: int) -> list[Figure]:
    """The share of memory beside QEMU, for each of four VMs on two nodes."""
    del rounds
    with make_cluster(box, "--pcocc-template=tiny:4", "-N2", boot=False) as cluster:
        started = cluster.start("--pcocc-vm true")
        end = time.monotonic() + 60
        while len(box.qemus(cluster.job)) < 4 and time.monotonic() < end:
            time.sleep(0.1)  # nothing announces a QEMU to an onlooker
        booting = resident.read(box)
        assert box.finish(started, 120).returncode == 0
        time.sleep(5)
        later = resident.read(box)
    return [_memory("while booting", booting, "30 MiB"), _memory("afterwards", later, "15 MiB")]


def _memory(when: str, found: dict[str, resident.Resident], asked: str) -> Figure:
    beside = {kind: one for kind, one in found.items() if kind not in resident.ONCE_A_JOB}
    shares = ", ".join(f"{one.count} {kind} {one.pss:.0f}" for kind, one in sorted(beside.items()))
    each = sum(one.pss for one in beside.values()) / 4
    return Figure(f"resident beside a QEMU {when} (PSS)", f"{each:.1f} MiB", f"of 4 VMs on 2 nodes: {shares} MiB", asked)
