"""slurmd under systemd: stopped, started and restarted while VMs run, which do not notice."""

import pytest

from tests.node.node import Job, Node
from tests.waiting import wait_for


def boots(cluster: Job, qemus: dict[str, int]) -> list[str]:
    """Return what tells one boot of each VM from another; each QEMU must be the same as before."""
    assert cluster.node.qemus(cluster.number) == qemus
    return cluster.srun("--pcocc-vm", "-l", "cat", "/proc/sys/kernel/random/boot_id").stdout.splitlines()


@pytest.mark.parametrize("words", ["stop start", "restart", "kill"])
def test_vms_go_on_without_it_and_steps_run_in_them_afterwards(node: Node, cluster: Job, words: str) -> None:
    qemus = node.qemus(cluster.number)
    before = sorted(boots(cluster, qemus))
    assert len(before) == 2
    main = node.out("systemctl show --property=MainPID --value slurmd")
    if words == "kill":
        node.out(f"kill -KILL {main}; systemctl reset-failed slurmd; systemctl restart slurmd")
    for word in words.split() if words != "kill" else ():
        node.out(["systemctl", word, "slurmd"])
        assert node.qemus(cluster.number) == qemus
    assert node.out("systemctl show --property=MainPID --value slurmd") != main
    wait_for(lambda: node.node_state() in ("mixed", "allocated"), node.node_state, 120, 1)
    assert sorted(boots(cluster, qemus)) == before
    assert node.out(["squeue", "--noheader", "--format=%T", f"--jobs={cluster.number}"]) == "RUNNING"


def test_a_job_that_ends_while_it_is_stopped_leaves_nothing_once_it_is_back(node: Node, cluster: Job) -> None:
    node.out("systemctl stop slurmd")
    try:
        node.out(["scancel", str(cluster.number)], "alice")
    finally:
        node.out("systemctl start slurmd")
    wait_for(lambda: node.is_over(cluster.number), "the end of the job", 240, 1)
    node.wait_idle(240)
    assert node.out("srun hostname", "alice") == "node"
