"""A cluster of VMs on a node as sites have them: by KVM, each in its task's cgroup."""

import json
import re

from tests.node.node import SYSTEMD_JOB, Job, Node, accelerator, read_verdict


def test_a_batch_job_has_a_cluster_of_vms(node: Node, cluster: Job) -> None:
    assert sorted(node.read(f"/home/alice/names{cluster.number}").splitlines()) == ["0: vm0", "1: vm1"]
    assert cluster.vm("ping -c 1 -W 60 vm1 >/dev/null && whoami") == "alice"
    assert cluster.srun("--pcocc-vm=vm1", "sh", "-c", "exit 7").returncode == 7


def test_auto_finds_kvm_good_and_who_may_not_open_it_has_it_from_root(node: Node, cluster: Job) -> None:
    """The node's users are not in the group of /dev/kvm (test_hardware.py)."""
    found = read_verdict(node)
    assert found["kind"] == "kvm", found
    for pid in node.qemus(cluster.number).values():
        assert accelerator(node, pid) == "kvm,device=/dev/fdset/1"
        assert "anon_inode:kvm-vm" in node.out(f"readlink /proc/{pid}/fd/*").split()


def test_node_check_finds_nothing_wrong_on_a_node_after_the_admins_page(node: Node, cluster: Job) -> None:
    told = json.loads(node.run("pcocc node check --json", status=0).stdout)
    assert [one for one in told["findings"] if one["level"] == "FAILED"] == [], told
    points = {one["point"]: one["text"] for one in told["findings"]}
    assert points["accelerator"].startswith("kvm, since ") and "is loaded by slurmd" in points["plugin"]


def test_node_check_of_all_nodes_says_the_same_by_srun_and_boots_a_guest(node: Node, cluster: Job) -> None:
    """In a step whose devices Slurm confines, beside VMs that run."""
    told = json.loads(node.run("pcocc node check --all --boot=tiny --json", status=0, timeout=600).stdout)
    assert [one["node"] for one in told["nodes"]] == ["node"] and told["silent"] == {}, told
    [findings] = [one["findings"] for one in told["nodes"]]
    assert [one for one in findings if one["level"] == "FAILED"] == [], told
    assert any(one["point"] == "boot" and one["text"].startswith("a VM of template tiny booted") for one in findings), told


def test_each_qemu_is_in_the_cgroup_of_its_task_with_what_slurm_gave_it(node: Node, cluster: Job) -> None:
    qemus = node.qemus(cluster.number)
    assert sorted(qemus) == ["vm0", "vm1"]
    groups = {vm: node.read(f"/proc/{pid}/cgroup").removeprefix("0::") for vm, pid in qemus.items()}
    job = SYSTEMD_JOB.format(cluster.number)
    for vm, group in groups.items():
        assert re.fullmatch(rf"{re.escape(job)}/step_\d+/user/task_{vm[2:]}", group), group
    step = f"/sys/fs/cgroup{groups['vm0'].rpartition('/user/')[0]}"
    limits = node.out(f"cat {step}/user/memory.max {step}/memory.max {step}/../memory.max").split()
    assert min(int(limit) for limit in limits if limit != "max") == 2 * 512 << 20
    assert len(node.out(f"taskset -cp {qemus['vm0']}").rpartition(": ")[2].replace("-", ",").split(",")) == 1
    cpus = [node.out(f"taskset -cp {pid}").rpartition(": ")[2] for pid in qemus.values()]
    assert len(set(cpus)) == 2 and set(node.read(f"{step}/cpuset.cpus.effective").replace("-", ",").split(",")) == set(cpus)
