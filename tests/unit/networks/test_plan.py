"""Networks, memory, QEMU arguments and seeds are pure functions of what Slurm and the site say."""

import base64
import itertools
import zlib
from dataclasses import replace
from ipaddress import IPv4Network

import pytest
import yaml

from pcocc_runtime import addressing
from pcocc_runtime.addressing import vm_address
from pcocc_runtime.documents.boot import Boot, Keys, decode_boot, encode_boot
from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.documents.layout import NodeLayout
from pcocc_runtime.documents.reach import address_of, render_ports
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.guest import seed
from pcocc_runtime.networks.kinds import BridgedNetwork, EthernetNetwork
from pcocc_runtime.networks.plan import (
    Bridged,
    Routed,
    Segment,
    Tap,
    interfaces_of,
    plan_networks,
)
from pcocc_runtime.node.describe import describe_interfaces, describe_reach
from pcocc_runtime.qemu.arguments import plan_qemu_argv
from pcocc_runtime.qemu.disks import Disk
from pcocc_runtime.qemu.memory import guest_memory
from pcocc_runtime.slurm.steps import boot_argv
from pcocc_runtime.slurm.text import JobFacts, parse_job, parse_steps
from tests.unit.qemu.plans import PLAN

STEP = BootStep(
    job=12, step=0, uid=2001, gid=2001, stepd=1, index=1,
    nodes=(NodeLayout("n1", (0, 1)), NodeLayout("n2", (2, 3))), sets=(("default", 3), ("two", 1)),
)  # fmt: skip
SPECS = {"one": EthernetNetwork("one"), "other": EthernetNetwork("other", int_network=IPv4Network("10.201.0.0/24"))}
SETS = {"default": ("one",), "two": ("one", "other")}


def test_a_node_plans_its_own_taps_of_each_network() -> None:
    one, other = plan_networks(STEP, SPECS, SETS)
    assert isinstance(one, Routed) and isinstance(other, Routed)
    assert [tap.name for tap in one.taps] == ["tap2n0", "tap3n0"]
    assert [tap.name for tap in other.taps] == ["tap3n1"]
    assert (one.vni, one.port) == (12, 24832)
    assert (other.vni, other.port) == (12, 24836)
    assert (one.gateway, one.node_address) == ("10.200.255.254", "10.200.255.252")
    assert (one.members.runs, other.members.runs) == (((0, 3),), ((3, 3),))


def test_interfaces_are_in_the_order_of_each_vms_resource_set() -> None:
    sets = {"default": ("one",), "two": ("other", "one")}
    plans = plan_networks(STEP, SPECS, sets)
    names = [[tap.name for _plan, tap in interfaces_of(plans, STEP, sets, rank)] for rank in (2, 3)]
    assert names == [["tap2n0"], ["tap3n1", "tap3n0"]]
    assert describe_interfaces(plans, STEP, sets)[3] == ((1, "52:54:00:04:00:03"), (0, "52:54:00:00:00:03"))


def test_a_vm_has_no_address_on_an_l2_network() -> None:
    plan, _other = plan_networks(STEP, {**SPECS, "one": EthernetNetwork("one", layer="L2")}, SETS)
    assert isinstance(plan, Segment) and plan.taps[0] == Tap("tap2n0", 2, "52:54:00:00:00:02")


def test_a_network_on_a_bridge_of_the_site_gives_macs_of_this_job_alone() -> None:
    site = BridgedNetwork("one", host_bridge="br-site", tap_prefix="site", mtu=9000)
    (plan,) = plan_networks(replace(STEP, sets=(("default", 4),)), {"one": site}, SETS)
    assert isinstance(plan, Bridged) and (plan.spec, plan.host_port) == (site, "site00000c00")
    assert [tap.mac for tap in plan.taps] == [addressing.bridged_mac(12, rank, 0) for rank in (2, 3)]
    assert (plan.spec.mtu, plan.wire) == (9000, "pt0")


def test_a_network_too_small_is_refused() -> None:
    specs = {**SPECS, "one": EthernetNetwork("one", int_network=IPv4Network("10.0.0.0/30"))}
    with pytest.raises(NodeError, match="no room for 4 VMs"):
        plan_networks(STEP, specs, SETS)


@pytest.mark.parametrize(("task", "accel", "guest"), [(1000, "tcg", 769), (1000, "kvm", 865), (512, "tcg", 288)])
def test_a_guest_gets_its_tasks_memory_less_what_qemu_needs(task: int, accel: str, guest: int) -> None:
    assert guest_memory(task, accel) == guest


def test_too_little_memory_is_refused_with_what_to_ask_for() -> None:
    with pytest.raises(RequestError, match="200 MiB is too small") as caught:
        guest_memory(200, "tcg")
    assert "--mem-per-cpu=" in (caught.value.hint or "")


def test_qemu_has_its_sandbox_the_tasks_size_and_passed_descriptors() -> None:
    argv = plan_qemu_argv(PLAN)
    pairs = dict(itertools.pairwise(argv))
    assert pairs["-sandbox"] == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    assert pairs["-smp"] == "cpus=2" and pairs["-m"] == "size=300M"
    assert "tap,id=net0,fd=5" in argv and "socket,id=keeper,fd=9" in argv
    assert pairs["-accel"].startswith("tcg") and pairs["-cpu"] == "max"


def test_a_comma_in_a_path_stays_in_the_path() -> None:
    argv = plan_qemu_argv(replace(PLAN, disks=(Disk("/scratch/a,b.qcow2"),)))
    assert any("file=/scratch/a,,b.qcow2,format=qcow2" in word for word in argv)


def test_the_seed_is_right_yaml_and_leaves_user_data_alone() -> None:
    keys = seed.Keys(
        "-----BEGIN A-----\nx\n-----END A-----\n",
        "ssh-ed25519 AAA u",
        "-----BEGIN B-----\ny\n-----END B-----\n",
        "ssh-ed25519 BBB h",
    )
    content = seed.render_seed(
        job=12, rank=1, vms=2, domain="vcluster", login=seed.JobUser("alice", 2001, 2002, "/home/alice", 'A "quoted": name'),
        keys=keys, user_data="#!/bin/sh\necho mine\n",
    )  # fmt: skip
    assert content["user-data"] == "#!/bin/sh\necho mine\n"
    assert content["meta-data"] == "instance-id: pcocc-12-vm1\nlocal-hostname: vm1\n"
    vendor = yaml.safe_load(content["vendor-data"])
    root, alice = vendor["users"]
    assert (alice["name"], alice["uid"], alice["primary_group"], alice["homedir"]) == ("alice", 2001, "2002", "/home/alice")
    assert root["ssh_authorized_keys"] == ["ssh-ed25519 AAA u"]
    files = {entry["path"]: entry for entry in vendor["write_files"]}
    assert files["/etc/pcocc/hostfile"]["content"] == "vm0\nvm1\n"
    assert (content["pcocc-user-key"], content["pcocc-host-key"]) == (keys.user, keys.host)


@pytest.mark.parametrize(
    "word",
    ["7", "*x", "%a", "yes", "#", "{", "a'b\"c", "i-1", "null", "1e3", "-", "a:", "é", "\U0001f600", "\x85", "a\\b"],
)
def test_an_instance_id_is_the_text_it_was(word: str) -> None:
    user, keys = seed.JobUser("a", 1, 1, "/a"), seed.Keys("", "", "", "")
    found = seed.render_seed(job=1, rank=0, vms=1, domain="d", login=user, keys=keys, user_data=None, instance_id=word)
    assert yaml.safe_load(found["meta-data"]) == {"instance-id": word, "local-hostname": "vm0"}


def test_the_boot_document_survives_its_trip_and_damage_is_told() -> None:
    keys = Keys("a", "b", "c", "d")
    assert decode_boot(encode_boot(Boot("cluster", keys))) == Boot("cluster", keys)
    no_keys = base64.b64encode(zlib.compress(b'{"cluster": "c", "keys": {"user": "k"}}')).decode()
    for text in ("nonsense", no_keys):
        with pytest.raises(RequestError, match="PCOCC_BOOT"):
            decode_boot(text)


@pytest.mark.parametrize("rank", [0, 1, 254, 255, 256, 65000])
def test_the_attach_client_computes_the_same_addresses(rank: int) -> None:
    assert address_of([("10.200.0.0/16", [(0, rank)])], rank) == str(vm_address(IPv4Network("10.200.0.0/16"), rank))


def test_a_vm_is_told_its_ports_of_the_node() -> None:
    forwards = [[0, 22, 60222], [1, 22, 60223], [0, 80, 60300]]
    assert render_ports(forwards, 0, "n1") == "22=n1:60222,80=n1:60300"
    assert render_ports(forwards, 2, "n2") == ""


def test_scontrols_line_is_parsed() -> None:
    text = "JobId=7 JobName=x NumNodes=2 NumCPUs=8 NumTasks=4 CPUs/Task=2 ReqB:S:C:T=0:0:*:* MinMemoryCPU=500M Command=(null)"
    assert parse_job(7, text) == JobFacts(7, 2, 2, 500, 0)
    assert parse_job(7, text).task_memory(4) == 1000
    assert parse_job(7, text.replace("MinMemoryCPU=500M", "MinMemoryNode=1.50G")).task_memory(3) == 768
    with pytest.raises(NodeError):
        parse_job(7, "slurm_load_jobs error: Invalid job id specified")


def test_a_boot_step_takes_its_tasks_cpus_or_whole_nodes() -> None:
    facts = JobFacts(7, 2, 3, 500, 0)
    assert "--cpus-per-task=3" in boot_argv(facts, 2, "default:2")
    whole = boot_argv(facts, 2, "default:2", True)
    assert "--cpu-bind=none" in whole and not any(word.startswith("--cpus-per-task") for word in whole)


def test_boot_steps_are_told_by_their_srun() -> None:
    text = (
        "StepId=7.0 Name=hostname SrunHost:Pid=login:11\n"
        "StepId=7.1 UserId=2001 State=RUNNING Name=pcocc-vms Dist=Block SrunHost:Pid=login:12\n"
    )
    (step,) = parse_steps(text)
    assert (step.name, step.host, step.pid) == ("7.1", "login", 12)
    assert parse_steps("No job steps in the system\n") == ()


@pytest.mark.parametrize(
    ("two", "layer", "addresses"),
    [
        (("one", "other"), "L3", ["10.200.0.1", "10.200.0.2", "10.200.0.3", "10.200.0.4"]),
        (("other", "one"), "L3", ["10.200.0.1", "10.200.0.2", "10.200.0.3", "10.201.0.4"]),
        (("one", "other"), "L2", [None, None, None, "10.201.0.4"]),
        ((), "L3", ["10.200.0.1", "10.200.0.2", "10.200.0.3", None]),
    ],
)
def test_a_vm_is_reached_at_the_first_l3_network_of_its_own_set(two: tuple[str, ...], layer: str, addresses: list[str]) -> None:
    specs, sets = {**SPECS, "one": EthernetNetwork("one", layer=layer)}, {"default": ("one",), "two": two}
    told = describe_reach(plan_networks(STEP, specs, sets), STEP, sets)
    assert [address_of(told, rank) for rank in range(4)] == addresses


def test_a_network_knows_its_vms_on_all_nodes() -> None:
    one, other = plan_networks(STEP, SPECS, SETS)
    assert (one.members.runs, other.members.runs) == (((0, 3),), ((3, 3),))
    assert (one.members.has_all, other.members.has_all) == (True, False)
    assert (one.members.own, other.members.own, other.members.ranks_of(STEP.nodes[0])) == ((2, 3), (3,), ())
