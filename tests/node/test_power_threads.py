"""A node whose cores have two threads each: what a VM gets of them is two threads of a core in the guest, too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node.node import Node, submit_cluster
from tests.node.topology import MOUNT, check_guest

SLURM = "/etc/slurm/slurm.conf"
_OLD, _NEW = "CoresPerSocket=2 ThreadsPerCore=1", "CoresPerSocket=1 ThreadsPerCore=2"


@pytest.fixture(scope="module")
def threaded(node: Node) -> Iterator[Node]:
    """The node after a start with two threads in each core; with one again afterwards."""
    for old, new, threads in ((_OLD, _NEW, 2), (_NEW, _OLD, 1)):
        node.out(f"grep -q '{old}' {SLURM} && sed -i 's/{old}/{new}/' {SLURM} && sync")
        node.power_cycle(threads)
        node.wait_idle()
        if threads == 2:
            yield node


@pytest.mark.parametrize(("options", "sockets", "nodes", "threads"), [
    (["-c2"], "00", ["0 1"], 2),
    (["-c4"], "0011", ["0 1", "2 3"], 2),
    (["-c2", "--threads-per-core=1"], "01", ["0", "1"], 1),
])  # fmt: skip
def test_threads_of_a_core_are_that_in_the_guest(
    threaded: Node, options: list[str], sockets: str, nodes: list[str], threads: int
) -> None:
    """A job that wants one thread of each core gets cores of both sockets, and each vCPU is a core of its own."""
    job = submit_cluster(threaded, "tiny:1", *options, MOUNT)
    check_guest(job, sockets, nodes, threads)
    job.end()
