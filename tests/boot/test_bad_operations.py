"""Every operation on VMs, asked for what is not there: one sentence, an exit status, and nothing left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.boot.box import Box, Done, ensure_sentence
from tests.boot.cluster import Cluster, make_cluster

OPERATIONS = [
    "log {vm}.{job}", "console {vm}.{job}", "screenshot {vm}.{job} -", "display {vm}.{job}", "reset {vm}.{job}",
    "power off {vm}.{job}", "power on {vm}.{job}", "power cycle {vm}.{job}", "monitor {vm}.{job} info status",
    "qmp {vm}.{job} query-status", "agent {vm}.{job} ping", "dump {vm}.{job} boottest-dump", "topology {vm}.{job}",
    "disk list {vm}.{job}", "disk attach {vm}.{job} /etc/hostname", "disk detach {vm}.{job} disk1",
    "mount {vm}.{job} t=/home/alice", "mount list {vm}.{job}", "umount {vm}.{job} t",
    "nc {vm}.{job} 22", "ssh {vm}.{job} true", "scp {vm}.{job}:a b", "save -j {job} -d boottest-none {vm}",
]
OF_JOBS = ["checkpoint -j {job} boottest-stored", "ssh-config -j {job}", "ansible-inventory -j {job}", "network show -j {job}"]


def run(box: Box, operation: str, job: object, vm: str = "vm0", user: str = "alice") -> Done:
    return box.run(["pcocc", *operation.format(job=job, vm=vm).split()], user=user)


@pytest.mark.parametrize("operation", [*OPERATIONS, *OF_JOBS])
def test_no_such_job_and_anothers(box: Box, cluster: Cluster, operation: str) -> None:
    ensure_sentence(run(box, operation, 999999), "999999")
    ensure_sentence(run(box, operation, cluster.job, user="bob"), f"job {cluster.job} ", "alice")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_such_vm(box: Box, cluster: Cluster, operation: str) -> None:
    ensure_sentence(run(box, operation, cluster.job, vm="vm9"), "vm9")


@pytest.fixture
def waiting(box: Box) -> Iterator[int]:
    """A job that has not begun."""
    job = int(box.out(["sbatch", "--parsable", "--hold", "--pcocc-template=tiny:2", "--wrap", "true"]))
    yield job
    box.run(["scancel", str(job)])


@pytest.mark.parametrize("operation", [*OPERATIONS, *OF_JOBS])
def test_a_job_that_waits(box: Box, waiting: int, operation: str) -> None:
    ensure_sentence(run(box, operation, waiting), f"job {waiting} has not started yet")


def test_a_job_without_vms(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny:2", "-N2", boot=False) as cluster:
        for operation in (*OPERATIONS, *OF_JOBS):
            ensure_sentence(run(box, operation, cluster.job), f"the VMs of job {cluster.job} are not running")
        left = box.out(["ls", "-a"]).split()
        assert not {"boottest-dump", "boottest-stored", "boottest-none"} & {*left}, left
