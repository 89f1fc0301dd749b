"""A site whose Slurm makes no cgroups: VMs run inside the systemd unit of slurmd, and nothing of them is left."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.node.node import Node, accelerator, restart_slurm, submit_cluster
from tests.waiting import wait_for

SLURM, CGROUP = "/etc/slurm/slurm.conf", "/etc/slurm/cgroup.conf"
SETTINGS = "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/affinity\n"


@pytest.fixture
def no_cgroups(node: Node, unshared: None) -> Iterator[None]:
    """A node with CgroupPlugin=disabled."""
    kept = {path: node.read(path) for path in (SLURM, CGROUP)}
    node.write(SLURM, re.sub("(?m)^(ProctrackType|TaskPlugin)=.*\n", "", f"{kept[SLURM]}\n") + SETTINGS)
    node.write(CGROUP, f"{kept[CGROUP]}\nCgroupPlugin=disabled\n")
    restart_slurm(node)
    yield
    for path, text in kept.items():
        node.write(path, f"{text}\n")
    restart_slurm(node)


def test_vms_run_without_cgroups_and_outlive_slurmd(node: Node, no_cgroups: None) -> None:
    job = submit_cluster(node, "tiny:1")
    qemus = node.qemus(job.number)
    [pid] = qemus.values()
    assert node.read(f"/proc/{pid}/cgroup") == "0::/system.slice/slurmd.service"
    assert accelerator(node, pid).startswith("kvm")
    told = json.loads(node.out("pcocc node check --json"))
    said = [one["text"] for one in told["findings"] if one["point"] == "cgroups"]  # Slurm shows no CgroupPlugin then
    assert any("TaskPlugin has no task/cgroup: VMs are not kept to" in text for text in said), said
    node.out("systemctl restart slurmd")
    wait_for(lambda: node.node_state() == "mixed", node.node_state, 120, 1)
    assert node.qemus(job.number) == qemus and job.vm("hostname") == "vm0"
    job.end()


@pytest.fixture
def old_hierarchy(node: Node, unshared: None) -> Iterator[None]:
    """A node on which something has mounted a hierarchy of cgroup version 1 beside version 2."""
    node.out("mkdir /run/old; mount -t cgroup -o none,name=old cgroup /run/old")
    yield
    node.out("umount /run/old; rmdir /run/old; systemctl reset-failed slurmd")
    restart_slurm(node)


def test_hierarchies_of_both_versions_are_refused_at_slurmds_start_and_named_by_node_check(
    node: Node, old_hierarchy: None
) -> None:
    """slurmd itself refuses them, in a sentence of its log; a job's VMs never come so far."""
    assert node.run("systemctl restart slurmd").returncode != 0
    assert "Hybrid mode is not supported. Mounted cgroups are: 1:name=old:/" in node.out("tail -n 5 /var/log/slurm/slurmd.log")
    told = json.loads(node.run("pcocc node check --json").stdout)
    said = [one["text"] for one in told["findings"] if one["point"] == "cgroups" and one["level"] == "FAILED"]
    assert said == ["CgroupPlugin is autodetect, and hierarchies of version 1 are mounted (name=old): slurmd does not start"
                    " with them"]  # fmt: skip
