"""The machine's power fails with VMs in it: when it is back, nothing of them is left, and jobs run."""

from tests.node.node import Job, Node, submit_cluster
from tests.waiting import wait_for


def test_after_a_power_failure_nothing_is_left_and_jobs_run(node: Node, cluster: Job) -> None:
    assert len(node.qemus(cluster.number)) == 2 and node.out("ls /var/lib/pcocc/scratch/pcocc") == str(cluster.number)
    before = node.read("/proc/sys/kernel/random/boot_id")
    node.power_cycle()
    assert node.read("/proc/sys/kernel/random/boot_id") != before
    wait_for(lambda: node.is_over(cluster.number), "the end of the job that ran", 240, 1)
    node.wait_idle(240)
    assert node.out("srun hostname", "bob") == "node"
    again = submit_cluster(node, "tiny:1")
    assert again.vm("hostname") == "vm0"
    again.end()
