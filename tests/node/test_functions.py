"""Real virtual functions, through a real IOMMU, in VMs of Slurm jobs that have them as a GRES: an Ethernet device's (igb)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node import functions
from tests.node.fabric import NOBODYS, find_addresses, is_root_s, ping, read_macs
from tests.node.functions import Functions, owners
from tests.node.node import Job, Node, SharedVms, accelerator, submit_cluster
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def nics(node: Node, shared: SharedVms) -> Iterator[Functions]:
    """Two functions of the igb, which VMs can have; the VMs that other tests share have ended."""
    shared.end()
    yield functions.begin(node, "nic")["nic"]
    functions.end(node)


@pytest.fixture(scope="module")
def fabric_vms(node: Node, nics: Functions) -> Iterator[SharedVms]:
    """What keeps the VMs."""
    one = SharedVms(node, "fabric:2", "-N1", "--gres=nic:2")
    yield one
    one.end()


@pytest.fixture
def fabric(fabric_vms: SharedVms) -> Job:
    """A job of alice's whose two VMs have a function each."""
    return fabric_vms.ensure()


def test_two_vms_have_a_function_each_and_reach_each_other_through_them(node: Node, nics: Functions, fabric: Job) -> None:
    assert owners(node, nics) == ["alice", "alice"]
    first, second = (find_addresses(fabric, vm) for vm in ("vm0", "vm1"))
    assert [first[0], second[0]] == read_macs(node) and first[0] != second[0]
    assert first[1] != second[1] and first[1].startswith("10.9.0.") and second[1].startswith("10.9.0.")
    ping(fabric, "vm0", "10.9.0.2")
    ping(fabric, "vm0", second[1])
    ping(fabric, "vm1", first[1])


def test_qemu_is_its_users_without_capabilities_and_has_one_of_the_files(node: Node, nics: Functions, fabric: Job) -> None:
    uid, opened = node.out("id -u alice"), []
    for pid in node.qemus(fabric.number).values():
        assert accelerator(node, pid).startswith("kvm")
        lines = (line.split(":\t", 1) for line in node.read(f"/proc/{pid}/status").splitlines())
        state = {key: value.split() for key, value in (line for line in lines if len(line) == 2)}
        assert state["Uid"] == [uid] * 4
        assert {key: int(state[key][0], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == dict.fromkeys(
            ("CapInh", "CapPrm", "CapEff", "CapAmb"), 0
        )
        assert state["NoNewPrivs"] == ["1"] and int(state["VmPin"][0]) + int(state["VmLck"][0]) >= 256 << 10
        opened += [path for path in node.out(f"readlink /proc/{pid}/fd/*").split() if path in nics.files]
    assert sorted(opened) == sorted(nics.files)
    assert node.run(["head", "-c1", nics.files[0]], "bob").returncode != 0


def test_slurmd_restarted_under_them_leaves_their_functions_alone(node: Node, nics: Functions, fabric: Job) -> None:
    before, qemus = read_macs(node), node.qemus(fabric.number)
    node.out("systemctl restart slurmd")
    wait_for(lambda: node.node_state() in ("mixed", "allocated"), node.node_state, 120, 1)
    assert (read_macs(node), owners(node, nics), node.qemus(fabric.number)) == (before, ["alice", "alice"], qemus)
    ping(fabric, "vm0", "10.9.0.2")


def test_who_waits_for_a_function_has_it_once_it_is_free(node: Node, nics: Functions, fabric: Job) -> None:
    """The job of another user waits for one of the two, and is not given what the first one still has."""
    done = node.run(["srun", "--immediate=1", "--pcocc-template=fabric", "--gres=nic:1", "true"], "bob")
    assert done.returncode != 0 and not node.processes("guest=job.*bob"), done.stderr
    assert owners(node, nics) == ["alice", "alice"]


def test_after_kill_of_their_qemus_the_next_user_has_the_functions(node: Node, nics: Functions, fabric: Job) -> None:
    before = read_macs(node)
    node.out(["kill", "-KILL", *map(str, node.qemus(fabric.number).values())])
    wait_for(lambda: is_root_s(node, nics), lambda: f"{owners(node, nics)}, {read_macs(node)}", 120, 1)
    fabric.end()
    job = submit_cluster(node, "fabric", "--gres=nic:1", user="bob")
    assert owners(node, nics) == ["bob", "root"]
    mac, _ = find_addresses(job, "vm0")
    assert mac == read_macs(node)[0] and mac not in before and read_macs(node)[1] == NOBODYS
    ping(job, "vm0", "10.9.0.2")
    job.end()
    wait_for(lambda: is_root_s(node, nics), lambda: f"{owners(node, nics)}, {read_macs(node)}", 120, 1)
