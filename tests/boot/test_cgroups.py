"""In which cgroups a job's processes are, with either version of cgroups, and that root knows them."""

from __future__ import annotations

import json

import pytest

from pcocc_runtime.system.cgroups import parse_step_group
from tests.boot.box import NODES, Box
from tests.boot.cluster import Cluster

SEEN, REAL = "/run/pcocc-seen-cgroups", "/run/pcocc-real-nft"
WATCH = f"""
cp /usr/sbin/nft {REAL}
printf '#!/bin/sh\\ncat /proc/self/cgroup >>{SEEN}\\nexec {REAL} "$@"\\n' >{REAL}.sh
chmod +x {REAL}.sh
mount --bind {REAL}.sh /usr/sbin/nft
"""


def group_on(cluster: Cluster, node: str) -> str | None:
    """Return the cgroup of the boot step on a node, as one of its tasks has it; None where Slurm makes none."""
    qemu = next(one for one in cluster.qemus().values() if one.node == node)
    return parse_step_group(qemu.read("cgroup"), cluster.job, int(cluster.boot_step().partition(".")[2]))


@pytest.mark.parametrize("node", NODES)
def test_root_knows_the_steps_cgroup(cluster: Cluster, node: str) -> None:
    record = json.loads(cluster.box.root(node, f"/run/pcocc/.state/{cluster.job}.json").read_text())
    seen, known = group_on(cluster, node), record["group"]
    assert (known is None) == (seen is None), (known, seen)
    assert str(seen).endswith(str(known)), (known, seen)  # a node of the box has a cgroup namespace, and sees less of the path


@pytest.mark.parametrize("node", NODES)
def test_a_jobs_dnsmasq_is_not_at_the_mercy_of_its_memory(cluster: Cluster, node: str) -> None:
    group, servers = group_on(cluster, node), cluster.box.processes(rf"{cluster.job}\.dnsmasq", node)
    assert servers and (group is None or not [one for one in servers if group in one.cgroup("memory")])


def test_nor_is_roots_helper_when_it_sets_up_and_releases(box: Box) -> None:
    with box.changed(WATCH, f"umount /usr/sbin/nft; rm {REAL}.sh {REAL}", "n1"):
        box.run("srun -w n1 --pcocc-template=tiny true", status=0)
        job = max(box.jobs("all"))
        box.ensure_released(job)
        seen = box.root("n1", SEEN)
        lines = seen.read_text().splitlines()
        seen.unlink()
    memory = [
        path
        for _number, names, path in (line.split(":", 2) for line in lines)
        if names == "" or "memory" in names.split(",")
    ]
    assert len(memory) > 1 and not [path for path in memory if f"/job_{job}/" in f"{path}/" or "/step_" in path], memory
