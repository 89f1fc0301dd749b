"""The machine's power fails while VMs run: when it is back, nothing of them is left, jobs run, and one that may starts again."""

import pytest

from tests.guide import find_difference, parse_page
from tests.machinelib.project import PAGE
from tests.node.node import Job, Node, read_verdict, submit
from tests.waiting import wait_for


@pytest.fixture
def jobs(node: Node, unshared: None) -> tuple[Job, Job]:
    """Two jobs whose VMs run: one that ends with its node, and one that Slurm puts into its queue again."""
    once, again = submit(node, "tiny:1", "--no-requeue"), submit(node, "tiny:1", "--requeue")
    for job in (once, again):
        job.wait_for_qemus(1)
    return once, again


def is_missed(job: Job) -> bool:
    """Have slurmd say which jobs it has, and tell whether Slurm has ended a job that is not among them.

    For 20 s after its own start slurmctld, which has lost its power, too, takes such a job for one that is late
    (BatchStartTimeout); unless slurmd registers, it asks again after a third of SlurmdTimeout.
    """
    job.node.out("systemctl restart slurmd")
    return job.node.is_over(job.number)


def test_after_a_power_failure_nothing_is_left_and_jobs_run(node: Node, jobs: tuple[Job, Job]) -> None:
    once, again = jobs
    assert node.out("ls /var/lib/pcocc/scratch/pcocc").split() == [str(job.number) for job in jobs]
    before = node.read("/proc/sys/kernel/random/boot_id")
    node.power_cycle()
    assert node.read("/proc/sys/kernel/random/boot_id") != before
    # once it is in the queue again, it would start after two minutes
    wait_for(lambda: node.run(["scontrol", "hold", str(again.number)]).returncode == 0, lambda: node.out("squeue"), 240, 1)
    wait_for(lambda: is_missed(once), "the end of the job that ran", 240, 10)
    node.wait_idle(240)
    assert node.out("srun hostname", "bob") == "node"
    node.run(f"rm -f /home/alice/job{again.number}; scontrol update JobId={again.number} StartTime=now", status=0)
    node.out(["scontrol", "release", str(again.number)])
    again.wait_until_up()
    assert again.vm("hostname") == "vm0"
    again.end()


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
