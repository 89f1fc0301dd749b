"""The machine's power fails while VMs run in it: when the power is back, nothing of them is left, and jobs run."""

from tests.guide import find_difference, parse_page
from tests.machinelib.project import PAGE
from tests.node.node import Node, read_verdict, submit
from tests.waiting import wait_for


def test_after_a_power_failure_nothing_is_left_and_jobs_run(node: Node) -> None:
    job = submit(node, "tiny:2")
    job.wait_for_qemus(2)
    assert node.out("ls /var/lib/pcocc/scratch/pcocc") == str(job.number)
    before = node.read("/proc/sys/kernel/random/boot_id")
    node.power_cycle()
    assert node.read("/proc/sys/kernel/random/boot_id") != before
    wait_for(lambda: node.is_over(job.number), "the end of the job that ran", 240, 1)
    node.wait_idle(240)
    assert node.out("srun hostname", "bob") == "node"


def test_what_a_user_types_on_the_admins_page_works(node: Node) -> None:
    """The machine after the power is back: configured by what root typed at the beginning, with daemons that systemd has
    started.
    """
    typed = [one for one in parse_page(PAGE.read_text()) if not one.as_root]
    assert typed
    for one in typed:
        done = node.run(["bash", "-c", one.command], "alice", status=0, timeout=600)
        assert find_difference(one.expected, done.stdout) is None, done.stdout + done.stderr
    assert read_verdict(node)["kind"] == "kvm"
