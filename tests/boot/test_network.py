"""Networks of real jobs: they connect VMs as configured, the drawing shows what was built, and faults are found."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.box import HOME, SHARED_NAME, Box
from tests.boot.cluster import Cluster, make_cluster


def test_show_draws_what_was_built(cluster: Cluster) -> None:
    shown = json.loads(cluster.box.out(["pcocc", "network", "show", "-j", str(cluster.job), "--json"]))
    text = json.dumps(shown)
    assert all(address in text for address in ("10.200.0.1", "10.200.0.4", "52:54:00:00:00:03"))
    drawn = cluster.box.out(["pcocc", "network", "show", "-j", str(cluster.job)])
    assert "vm3 eth0" in drawn and "n2" in drawn and "10.200.255.254" in drawn


def test_check_passes_where_nothing_is_wrong(cluster: Cluster) -> None:
    done = cluster.box.run(["pcocc", "network", "check", "-j", str(cluster.job)])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 VMs answer from 2 nodes" in done.stdout


def test_check_names_the_node_whose_tunnel_is_down(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny:2", "-N2") as cluster:
        inside = f"nsenter --net=/run/netns/pcocc-{cluster.job}"
        box.run(["sh", "-c", f"{inside} ip link set vx0 down"], user="root", node="n2", status=0)
        done = box.run(["pcocc", "network", "check", "-j", str(cluster.job)], timeout=60)
    assert done.returncode == 1
    assert "n2" in done.stdout and "vx0" in done.stdout, done.stdout


def test_another_users_job_is_not_shown(cluster: Cluster) -> None:
    done = cluster.box.run(["pcocc", "network", "show", "-j", str(cluster.job)], user="bob")
    assert done.returncode != 0 and "Traceback" not in done.stderr and "alice" in done.stderr


def test_vms_reach_other_machines_but_not_their_node(cluster: Cluster) -> None:
    assert "1 packets received" in cluster.vm("ping -c1 -W5 10.77.0.1"), "the login host"
    node = cluster.box.out(["getent", "ahostsv4", "n1"]).split()[0]
    assert "0 packets received" in cluster.vm(f"ping -c1 -W2 {node} || true")


def test_a_set_for_the_jobs_partition_is_admitted_by_root_too(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=placed:1") as cluster:
        assert cluster.vm("echo $PCOCC_VM_NAME") == "vm0"


def test_a_set_for_another_partition_is_refused_by_root_whatever_is_forged(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny:1", boot=False) as cluster:
        done = cluster.srun("--overlap -n1 --pcocc-boot=elsewhere:1 true", timeout=60)
    assert done.returncode != 0
    assert "resource set 'elsewhere' is not for partition 'main'; it is for: elsewhere" in done.stderr


@pytest.mark.parametrize("gap", ["\n", "\r", "\x0b", "\x1e", "\u2028"])
def test_an_account_is_one_name_whatever_it_holds(box: Box, gap: str) -> None:
    account = gap.join(["mine", "partition elsewhere", "qos normal", "end", ""])
    with make_cluster(box, "--pcocc-template=tiny:1", f"--account={account}", boot=False) as cluster:
        done = cluster.srun("--overlap -n1 --pcocc-boot=elsewhere:1 true", timeout=60)
    assert done.returncode != 0 and "pcocc: error:" in done.stderr and "Traceback" not in done.stderr


def test_each_task_of_an_array_is_placed_for_itself(box: Box) -> None:
    script = "srun --pcocc-vm sh -c 'echo $PCOCC_VM_NAME'"
    output = HOME / "boottest-array"
    try:
        assert box.submit(["--array=0-1", f"--output={output}%a", "--pcocc-template=placed", "--wrap", script]) == 0
        assert ["vm0" in Path(f"{output}{task}").read_text().split() for task in range(2)] == [True, True]
    finally:
        for task in range(2):
            Path(f"{output}{task}").unlink(missing_ok=True)


def test_a_vm_with_two_interfaces_is_reached_at_its_first(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny:1,twin:1", "-N2") as cluster:
        cluster.vm("until ip -4 -o addr show eth1 | grep -q inet; do sleep 0.1; done", "vm1")
        addresses = cluster.vm("ip -4 -o addr show | grep -o 'eth[01].*inet [0-9.]*'", "vm1")
        assert [line.split()[-1] for line in sorted(addresses.splitlines())] == ["10.201.0.2", "10.200.0.2"]
        assert "1 packets received" in cluster.vm("ping -c1 -W5 10.200.0.2"), "the network that both are on"
        assert cluster.vm("echo $SSH_CONNECTION | cut -d' ' -f3", "vm1") == "10.201.0.2"
        node = cluster.node_of("vm1")
        for where in ("n1", "n2"):
            done = cluster.srun(
                ["--overlap", "--pcocc-vm=vm1", "-w", where, "-n1", "-N1", "sh", "-c", "echo $PCOCC_HOST_PORTS"],
                status=0,
            )
            # another job may have the first of the range
            assert re.fullmatch(rf"22={node}:60\d{{3}}\n", done.stdout), f"typed on {where}"
        assert cluster.vm("echo $PCOCC_HOST_PORTS") == ""


BANNER = "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 10).recv(4).decode())"


@pytest.fixture(scope="module")
def twins(box: Box) -> Iterator[Cluster]:
    """A VM on each of two nodes, with interfaces in two L3 networks and one L2 network."""
    with make_cluster(box, "--pcocc-template=twin:2", "-N2", name=SHARED_NAME) as found:
        yield found
    box.ensure_released(found.job)


@pytest.mark.parametrize("typed_on", ["login", "n1", "n2"])
def test_ports_of_the_nodes_lead_to_their_vms(box: Box, twins: Cluster, typed_on: str) -> None:
    [job] = [one for one in json.loads(box.out("pcocc ps -l --json")) if one["job"] == str(twins.job)]
    for vm in job["vm_list"]:
        [port] = [str(one["host_port"]) for one in vm["forwards"] if one["vm_port"] == 22]
        assert box.out(["python3", "-c", BANNER, vm["node"], port], node=typed_on) == "SSH-"


def test_frames_of_an_l2_network_pass_between_nodes(twins: Cluster) -> None:
    for rank in range(2):
        twins.vm(f"sudo ip addr add 192.168.7.{rank + 1}/24 dev eth2", f"vm{rank}")
    assert "1 packets received" in twins.vm("ping -c1 -W5 -I eth2 192.168.7.2")
