"""A virtual cluster in a job: where its VMs are, what they are to Slurm, and how they see each other."""

import re
from pathlib import Path

import pytest

from tests.boot.box import HOME, NODES, Box
from tests.boot.cluster import Cluster, make_cluster
from tests.waiting import wait_for

JOB_SCRIPT = """#!/bin/sh
echo plain; srun -l hostname
echo first; srun --pcocc-vm -l hostname
echo second; srun --pcocc-vm -l hostname 2>&1
echo some; srun --pcocc-vm=vm[1,3] -n2 -l hostname
echo steps; squeue -h -s -j $SLURM_JOB_ID -O stepid:20,stepname:30
exit 3
"""


def submit(box: Box, name: str, text: str, *options: str) -> tuple[int, str]:
    """Submit a batch script and wait for it; return the job's status and output."""
    script, out = HOME / f"{name}.sh", HOME / f"{name}.out"
    script.write_text(text)
    script.chmod(0o755)
    try:
        return box.submit([f"--output={out}", *options, str(script)]), out.read_text()
    finally:
        script.unlink()
        out.unlink(missing_ok=True)


def test_a_batch_job_uses_its_hosts_and_its_vms(box: Box) -> None:
    status, text = submit(box, "boottest-job", JOB_SCRIPT, "--pcocc-template=tiny:4", "-N2")
    box.history.append(text)
    parts = dict(re.findall(r"(?ms)^(plain|first|second|some|steps)\n(.*?)(?=^(?:plain|first|second|some|steps)$|\Z)", text))
    told = ("pcocc:", "srun: Job ", "srun: Step created")  # a slurmctld that is busy has srun ask again
    said = {name: sorted(line for line in part.splitlines() if not line.startswith(told)) for name, part in parts.items()}
    assert status == 3
    assert sorted(line.split()[1] for line in said["plain"]) == ["n1", "n1", "n2", "n2"]
    assert said["first"] == ["0: vm0", "1: vm1", "2: vm2", "3: vm3"]
    assert said["second"] == said["first"] and "pcocc:" not in parts["second"], "a second step boots nothing"
    assert said["some"] == ["0: vm1", "1: vm3"]
    assert [line.split()[1] for line in said["steps"] if "pcocc" in line] == ["pcocc-vms"]


def test_a_batch_script_runs_in_vm0_and_its_status_is_the_jobs(box: Box) -> None:
    script = "#!/bin/sh\nhostname\necho $PCOCC_VM_NAME $1\nid -un\ncat | wc -c\nexit 9\n"
    status, text = submit(box, "boottest-vm", script, "--pcocc-template=tiny:2", "--pcocc-vm")
    said = [line.strip() for line in text.splitlines() if not line.startswith(("pcocc:", "srun: error"))]
    assert said == ["vm0", "vm0", "alice", "0"]
    assert status == 9


def test_a_plain_step_runs_on_the_nodes(cluster: Cluster) -> None:
    done = cluster.srun("-n4 hostname", status=0)
    assert sorted(done.stdout.split()) == ["n1", "n1", "n2", "n2"]


def test_every_vm_runs_one_task_without_being_counted(cluster: Cluster) -> None:
    done = cluster.srun("-l --pcocc-vm hostname", status=0)
    assert sorted(done.stdout.splitlines()) == ["0: vm0", "1: vm1", "2: vm2", "3: vm3"]


def test_two_vms_are_on_each_node(cluster: Cluster) -> None:
    assert {name: one.node for name, one in cluster.qemus().items()} == {"vm0": "n1", "vm1": "n1", "vm2": "n2", "vm3": "n2"}


def test_a_later_step_does_not_boot(cluster: Cluster) -> None:
    before = cluster.boot_step(), {name: one.pid for name, one in cluster.qemus().items()}
    done = cluster.srun("--pcocc-vm=vm[0-3] hostname", status=0)
    assert done.stderr == ""
    assert (cluster.boot_step(), {name: one.pid for name, one in cluster.qemus().items()}) == before


def test_a_step_can_be_in_some_of_the_vms(cluster: Cluster) -> None:
    done = cluster.srun("--pcocc-vm=vm[1,3] -n2 -l hostname", status=0)
    assert sorted(done.stdout.splitlines()) == ["0: vm1", "1: vm3"]


def test_more_tasks_than_vms_are_dealt_in_blocks(cluster: Cluster) -> None:
    done = cluster.srun("--pcocc-vm=vm[1-2] -n4 -l hostname", status=0)
    assert sorted(done.stdout.splitlines()) == ["0: vm1", "1: vm1", "2: vm2", "3: vm2"]


def test_a_vm_answers_a_step_from_a_node_it_is_not_on(cluster: Cluster) -> None:
    done = cluster.srun("--pcocc-vm=vm3 -n1 -w n1 hostname", status=0)
    assert done.stdout == "vm3\n"


def test_no_pcocc_vm_runs_on_the_hosts(cluster: Cluster) -> None:
    done = cluster.srun("-n1 -w n1 --no-pcocc-vm hostname", status=0)
    assert done.stdout == "n1\n"


def test_vms_on_different_nodes_reach_each_other_by_name(cluster: Cluster) -> None:
    assert "1 packets received" in cluster.vm("ping -c1 -W5 vm3")
    assert cluster.vm("ssh vm3 hostname") == "vm3"
    assert cluster.vm("ssh vm0 hostname", "vm3") == "vm0"


def test_vms_on_one_node_reach_each_other_by_name(cluster: Cluster) -> None:
    assert cluster.vm("ssh vm1 hostname") == "vm1"


def test_a_qemu_is_the_task_of_its_step(cluster: Cluster) -> None:
    step = cluster.boot_step()
    for name, qemu in cluster.qemus().items():
        parent = Path(f"/proc/{qemu.status('PPid')[0]}/cmdline").read_text()
        assert parent.startswith("slurmstepd") and f"[{step}]" in parent, name
        listed = cluster.box.out(["scontrol", "listpids", str(cluster.job), qemu.node], user="root", node=qemu.node)
        tasks = {line.split()[0]: line.split()[4] for line in listed.splitlines() if line.split()[2] == step.partition(".")[2]}
        assert tasks[str(qemu.pid)] == name[2:], (name, listed)


def test_a_qemu_belongs_to_the_user(cluster: Cluster) -> None:
    for qemu in cluster.qemus().values():
        assert set(qemu.status("Uid")) == set(qemu.status("Gid")) == {"2001"}
        assert int(qemu.status("CapEff")[0], 16) == 0


@pytest.mark.parametrize("controller", ["cpuset", "memory"])
def test_a_qemu_is_in_the_cgroups_of_its_step(cluster: Cluster, controller: str) -> None:
    number = cluster.boot_step().partition(".")[2]
    for qemu in cluster.qemus().values():
        assert f"/uid_2001/job_{cluster.job}/step_{number}/" in qemu.cgroup(controller) + "/"


def test_a_qemu_has_the_cpus_of_its_task(cluster: Cluster) -> None:
    masks = {name: qemu.status("Cpus_allowed")[0] for name, qemu in cluster.qemus().items()}
    for name, qemu in cluster.qemus().items():
        allowed = set(Path(qemu.cgroup("cpuset"), "cpuset.cpus").read_text().strip())
        assert allowed, (name, masks)


def test_a_qemu_runs_in_its_sandbox(cluster: Cluster) -> None:
    for qemu in cluster.qemus().values():
        assert qemu.status("Seccomp") == ["2"]
        assert qemu.status("NoNewPrivs") == ["1"]


def test_the_boot_step_has_a_telling_name(cluster: Cluster) -> None:
    assert "pcocc-vms" in [name.strip() for name in cluster.steps().values()]


def test_nothing_of_ours_waits_in_the_job_beside_a_vm_but_its_keeper(cluster: Cluster) -> None:
    for node in NODES:
        found = cluster.box.processes(rf"libexec/pcocc/.*\b{cluster.job}\b", node)
        assert [re.search(r"libexec/pcocc/(\w+)", one.words).group(1) for one in found] == ["keeper"] * 2


def test_two_first_steps_at_once_end_with_one_set_of_vms(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny:2", "-N2", "--cpus-per-task=2", boot=False) as cluster:
        started = [cluster.start("--overlap --pcocc-vm=vm[0-1] -l hostname") for _ in range(2)]
        for process in started:
            done = box.finish(process)
            assert done.returncode == 0
            assert sorted(done.stdout.splitlines()) == ["0: vm0", "1: vm1"]
            assert "pcocc: error" not in done.stderr
        assert sorted(cluster.qemus()) == ["vm0", "vm1"]
        assert len(box.processes(rf"guest=job{cluster.job}-")) == 2
        cluster.boot_step()


def test_the_end_of_a_job_is_quick_and_leaves_nothing(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny:2", "-N2") as cluster:
        assert box.leftovers(cluster.job)
    box.ensure_released(cluster.job, 5)


def test_a_job_that_ends_says_nothing_afterwards(box: Box) -> None:
    path = HOME / "boottest-late"  # a file, as tests read a pipe only to the end of srun
    try:
        box.run(["sh", "-c", f"srun --pcocc-template=tiny true 2>{path}"], status=0)
        job = max(box.jobs("all"))
        wait_for(lambda: not box.processes(rf"libexec/pcocc/boot {job}$"), "the end of the starter")
        assert [line for line in path.read_text().splitlines() if not line.startswith(("pcocc: ", "srun: job "))] == []
    finally:
        path.unlink(missing_ok=True)


OURS = r"libexec/pcocc/|qemu-system|libpython"


def test_a_job_without_our_options_meets_nothing_of_ours(box: Box) -> None:
    before = {one.pid for one in box.processes(OURS)}
    started = box.start(["srun", "sh", "-c", "env; cat /proc/$PPID/maps 2>/dev/null; exec sleep 1.37"])
    wait_for(lambda: box.processes(r"^sleep 1.37$"), "the task")
    job = box.jobs()[0]
    assert {one.pid for one in box.processes(OURS)} <= before
    assert box.leftovers(job) == []
    done = box.finish(started)
    assert done.returncode == 0 and "pcocc" not in done.stderr
    assert [line for line in done.stdout.splitlines() if "pcocc" in line.lower() and not line.startswith("PATH=")] == []


def test_srun_without_our_options_opens_no_interpreter(box: Box) -> None:
    trace = box.run(["env", "LD_DEBUG=files", "srun", "-n1", "true"], status=0).stderr
    assert "libpython" not in trace and "pcocc_client" not in trace and "pcocc.so" in trace


@pytest.mark.parametrize(
    ("words", "nodes"),
    [
        (["--pcocc-vm=vm3"], "n2"),
        (["--pcocc-vm=vm3", "-n1"], "n2"),
        (["--pcocc-vm=vm[1,3]", "-n", "2"], "n1 n2"),
        (["--overlap", "--pcocc-vm=vm[2,3]", "--label"], "n2"),
        (["--pcocc-vm=vm0,vm3"], "n1 n2"),
        (["--pcocc-vm=vm3", "-N1", "-wn1"], "n1"),
        (["--pcocc-vm=vm3", "--nodelist=n1", "--nodes=1"], "n1"),
        (["--pcocc-vm=vm3", "--exclude", "n2"], "n1"),
    ],
)
def test_a_step_runs_on_the_nodes_of_its_vms(cluster: Cluster, words: list[str], nodes: str) -> None:
    done = cluster.srun([*words, "sh", "-c", "echo $PCOCC_VM_NAME on $SLURM_STEP_NODELIST $SLURM_HOSTFILE"], status=0)
    said = {line.rpartition("on ")[2] for line in done.stdout.splitlines()}
    assert said == {"n[1-2]" if " " in nodes else nodes}, done.stdout


def test_on_hosts_although_the_environment_names_vms(cluster: Cluster) -> None:
    done = cluster.box.run("srun --no-pcocc-vm hostname", env={**cluster.environ, "PCOCC_VM": "vm3"}, status=0)
    assert set(done.stdout.split()) == {"n1", "n2"}
