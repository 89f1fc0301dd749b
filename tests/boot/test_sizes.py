"""How large VMs are and where they go: the task's CPUs and memory, and no more than these."""

import re
from pathlib import Path

import pytest

from pcocc_runtime.qemu.memory import guest_memory
from tests.boot.box import SHARED_NAME, Box, Process
from tests.boot.cluster import Cluster, make_cluster
from tests.waiting import wait_for


def option(qemu: Process, name: str) -> str:
    """Return the value of an option of a QEMU."""
    return re.search(rf" -{name} (\S+)", qemu.words).group(1)  # type: ignore[union-attr]


def accelerator(qemu: Process) -> str:
    """Return what a QEMU runs its guest with."""
    return option(qemu, "accel").partition(",")[0] if " -accel " in qemu.words else "kvm"


@pytest.fixture(scope="module")
def sized(box: Box):  # type: ignore[no-untyped-def]
    """One VM of two CPUs with 500 MB each."""
    with make_cluster(box, "--pcocc-template=tiny", "-c2", "--mem-per-cpu=500M", name=SHARED_NAME) as cluster:
        yield cluster


def test_a_vm_has_the_cpus_of_its_task(sized: Cluster) -> None:
    assert sized.vm(["nproc"]) == "2"


def test_a_vm_has_the_memory_of_its_task_less_what_qemu_needs(sized: Cluster) -> None:
    qemu = sized.qemus()["vm0"]
    assert option(qemu, "m") == f"size={guest_memory(1000, accelerator(qemu))}M"


def test_the_guest_sees_that_memory(sized: Cluster) -> None:
    guest = guest_memory(1000, accelerator(sized.qemus()["vm0"]))
    seen = int(sized.vm("grep MemTotal /proc/meminfo | tr -dc 0-9")) // 1024
    assert 0.8 * guest < seen <= guest


def test_a_vm_that_uses_all_its_memory_stays_within_its_task(sized: Cluster) -> None:
    qemu = sized.qemus()["vm0"]
    sized.vm(
        "dd if=/dev/zero of=/dev/shm/fill bs=1M count=2000 2>/dev/null; for i in 1 2; do cat /dev/shm/fill >/dev/null;"
        " done; rm /dev/shm/fill"
    )
    assert qemu.alive() and sized.vm(["hostname"]) == "vm0"
    limit = 1000 << 20
    directory = Path(qemu.cgroup("memory")).parents[0]
    peak = int(Path(directory, "memory.max_usage_in_bytes").read_text())
    assert peak < limit, f"{peak >> 20} MiB of {limit >> 20}"
    assert int(qemu.status("VmHWM")[0]) * 1024 < limit


def test_templates_give_what_the_user_does_not(cluster: Cluster) -> None:
    qemu = cluster.qemus()["vm0"]
    assert option(qemu, "smp").partition(",")[0] == "cpus=1"
    assert option(qemu, "m") == f"size={guest_memory(512, accelerator(qemu))}M"


@pytest.mark.long
def test_eight_vms_on_two_nodes_are_four_and_four(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny:8", "-N2", boot=False) as cluster:
        done = cluster.srun("--pcocc-vm=vm[0-7] hostname", status=0, timeout=300)
        assert sorted(done.stdout.split()) == [f"vm{rank}" for rank in range(8)]
        assert [one.node for _name, one in sorted(cluster.qemus().items())] == ["n1"] * 4 + ["n2"] * 4


def test_the_environment_can_name_the_template(box: Box) -> None:
    done = box.run("srun hostname", env={"PCOCC_TEMPLATE": "tiny:2"}, status=0)
    assert sorted(done.stdout.split()) == ["vm0", "vm1"]


def test_the_command_line_wins_over_the_environment(box: Box) -> None:
    done = box.run("srun --pcocc-template=tiny hostname", env={"PCOCC_TEMPLATE": "tiny:9999"}, status=0)
    assert done.stdout.split() == ["vm0"]


def test_a_count_that_says_the_same_is_no_conflict(box: Box) -> None:
    done = box.run("srun -n2 --pcocc-template=tiny:2 hostname", status=0)
    assert sorted(done.stdout.split()) == ["vm0", "vm1"]


def test_words_of_a_command_outside_a_job_make_no_job_of_vms(box: Box) -> None:
    words = "--pcocc-template=tiny:3 --pcocc-vm --jobid=7 -N2"
    assert box.out(f"srun -J name echo {words}") == words
    assert not box.processes(rf"guest=job{max(box.jobs('all'))}-")


def test_words_of_a_command_in_a_job_are_not_its_steps(cluster: Cluster) -> None:
    for words in ("--pcocc-vm=vm1 --no-pcocc-vm -n 3", "--jobid=7 --pcocc-vm"):
        assert cluster.srun(f"-n2 -- echo {words}", status=0).stdout == f"{words}\n" * 2
    assert cluster.srun("--pcocc-vm=vm[1-2] echo -N2 --pcocc-vm=vm3", status=0).stdout == "-N2 --pcocc-vm=vm3\n" * 2


def test_options_may_be_cut_short_as_srun_allows(box: Box, cluster: Cluster) -> None:
    done = cluster.srun("-lu --pcocc-v=vm[1-2] hostname", status=0)
    assert sorted(done.stdout.split()) == ["0:", "1:", "vm1", "vm2"]
    done = box.run("srun --pcocc-t tiny:2 echo --no-pcocc-vm", status=0)
    assert done.stdout == "--no-pcocc-vm\n" * 2


def test_on_hosts_although_a_template_is_typed(box: Box) -> None:
    done = box.run("srun --pcocc-template=tiny:2 -N2 --no-pcocc-vm hostname", status=0)
    assert sorted(done.stdout.split()) == ["n1", "n2"]
    assert not box.processes(rf"guest=job{max(box.jobs('all'))}-")


def test_a_task_too_small_for_a_vm_is_one_sentence(box: Box) -> None:
    done = box.run("srun --pcocc-template=tiny --mem-per-cpu=100M hostname")
    assert done.returncode != 0 and done.stdout == ""
    told = [line for line in done.stderr.splitlines() if line.startswith("pcocc: error:")]
    assert len(told) == 1 and "100 MiB" in told[0], done.stderr
    assert "hint:" in done.stderr


def test_a_powered_off_guest_is_told_and_fails_its_steps(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny:2", "-N2") as cluster:
        waiting = cluster.start("--overlap --pcocc-vm=vm1 -n1 sleep 500")
        wait_for(lambda: len(cluster.steps()) > 1, "the step")
        wait_for(lambda: box.processes(rf"^ssh .*/{cluster.job}/"), "its connection")
        cluster.srun(["--overlap", "-n1", "--pcocc-vm=vm1", "sudo", "poweroff"])
        done = box.finish(waiting)
        assert done.returncode != 0
        assert "vm1" in done.stderr and "n2" in done.stderr and "powered it off" in done.stderr, done.stderr
        assert cluster.srun("--pcocc-vm=vm0 -n1 hostname").stdout == "vm0\n", "the others go on"
