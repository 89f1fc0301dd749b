"""What VMs may send to each other and to their node: each wall is attacked, and the same attack goes through without it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from pcocc_runtime.documents.boot_step import parse_boot_step
from pcocc_runtime.networks import nft_inside
from pcocc_runtime.networks.kinds import EthernetNetwork
from pcocc_runtime.networks.plan import plan_networks
from tests.netns.fabric import Guest, Node, connect, request
from tests.netns.forge import FORGED, HONEST
from tests.netns.lan import NOBODY, PYTHON, answering, ask, forge, listening

GATEWAY, NODE = "10.200.255.254", "10.200.255.253"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Guest, Guest]]:
    """A node of job 12, whose vm0 attacks and whose vm1 listens."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/root") as directory:
        nodes = Node(Path(directory), "one"), Node(Path(directory), "two")
        stepd = subprocess.Popen(["sleep", "600"])
        try:
            connect(*nodes)
            nodes[0].helper("setup", request(12, 0, stepd.pid))
            guests = [Guest(nodes[0], 12, rank) for rank in (0, 1)]
            for guest in guests:
                guest.dhcp()
            yield nodes[0], *guests
        finally:
            stepd.kill()
            stepd.wait()
            for node in nodes:
                node.close()


@pytest.fixture(scope="module")
def heard(pair: tuple[Node, Guest, Guest]) -> tuple[set[str], set[str]]:
    """The names of the frames that reach vm1 with the walls, and without."""
    node, attacker, victim = pair
    found = []
    for walls in (nullcontext(), without(node, "bridge pcocc")):
        with walls, listening(victim) as frames:
            forge(attacker, *HONEST, *FORGED)
        wire = b"\n".join(bytes.fromhex(frame) for frame in frames)
        found.append({name for name in (*HONEST, *FORGED) if f"<{name}>".encode() in wire})
    return found[0], found[1]


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_frame_reaches_another_vm_only_without_the_walls(heard: tuple[set[str], set[str]], name: str) -> None:
    assert name not in heard[0]
    assert name in heard[1]


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_frame_passes(heard: tuple[set[str], set[str]], name: str) -> None:
    assert name in heard[0]


SERVICES = (22, 111, 2049, 5353, 7777)
QUESTIONS = [
    f"{kind},{address},{port}"
    for kind in ("tcp", "udp")
    for address in (GATEWAY, NODE, "169.254.64.1")
    for port in SERVICES
]


def test_a_vm_reaches_nothing_of_its_node_but_dhcp_dns_and_ping(pair: tuple[Node, Guest, Guest]) -> None:
    node, vm, _other = pair
    with answering(node, *SERVICES, netns="pcocc-12"):
        assert ask(vm, *QUESTIONS) == {}
        assert vm.run("ping", "-c1", "-W1", NODE, check=False).returncode != 0
        vm.run("ping", "-c1", "-W5", GATEWAY)
        assert "10.200.0.1" in vm.run("busybox", "nslookup", "vm0.vcluster", GATEWAY).stdout
        with without(node, "inet pcocc"):
            assert set(ask(vm, *QUESTIONS)) == set(QUESTIONS)


def test_a_frame_for_a_reserved_group_does_not_get_past_the_walls(pair: tuple[Node, Guest, Guest]) -> None:
    node, vm, _other = pair
    assert "reserved-group" not in heard_by_node(node, vm)
    with without(node, "inet pcocc"):
        assert "reserved-group" not in heard_by_node(node, vm)
        with without(node, "bridge pcocc"):
            assert "reserved-group" in heard_by_node(node, vm)


@pytest.fixture
def flat(pair: tuple[Node, Guest, Guest]) -> Iterator[tuple[Node, Guest, Guest]]:
    """The same pair with the walls of an L2 network."""
    node = pair[0]
    plans = plan_networks(
        parse_boot_step(request(12, 0, 1).splitlines()), {"lan": EthernetNetwork("lan", layer="L2")}, {"default": ("lan",)}
    )
    (node.confdir / "flat.nft").write_text(nft_inside.render_firewall(12, plans, None))
    with without(node, "bridge pcocc"), without(node, "inet pcocc"):
        node.in_job(12, "nft", "-f", "/etc/pcocc/flat.nft")
        yield pair


def test_everything_passes_between_vms_of_an_l2_network(flat: tuple[Node, Guest, Guest]) -> None:
    _node, attacker, victim = flat
    with listening(victim) as frames:
        forge(attacker, *HONEST, *FORGED)
    wire = b"\n".join(bytes.fromhex(frame) for frame in frames)
    assert [name for name in (*HONEST, *FORGED) if f"<{name}>".encode() not in wire] == []


def test_a_vm_of_an_l2_network_reaches_nothing_of_its_node(flat: tuple[Node, Guest, Guest]) -> None:
    node, vm, _other = flat
    vm.run("ip", "neigh", "flush", "all")
    with answering(node, *SERVICES, netns="pcocc-12"):
        assert ask(vm, *QUESTIONS) == {}
        assert "reserved-group" not in heard_by_node(node, vm)
    assert vm.run("ping", "-c1", "-W1", GATEWAY, check=False).returncode != 0
    assert "lladdr" not in vm.run("ip", "neigh", "show", GATEWAY).stdout


def heard_by_node(node: Node, vm: Guest) -> str:
    """Return what the node hears on a port after a forged frame, up to a question of its own."""
    with answering(node, 7778, netns="pcocc-12") as server:
        forge(vm, "reserved-group")
        assert ask(node, "udp,127.0.0.1,7778", prefix=("ip", "netns", "exec", "pcocc-12"))
        lines: list[str] = []
        assert server.stdout
        while not lines or "127.0.0.1" not in lines[-1]:
            lines.append(server.stdout.readline())
    return "".join(bytes.fromhex(line.split()[1]).decode() for line in lines)


def test_the_node_reaches_its_vms_and_hears_their_answers(pair: tuple[Node, Guest, Guest]) -> None:
    node, vm, _other = pair
    with answering(node, 22, netns=vm.name):
        answer = node.in_job(12, "sh", "-c", "busybox nc -w2 10.200.0.1 22 </dev/null").stdout
    assert answer.startswith(NODE)


@contextmanager
def without(node: Node, table: str, job: int = 12) -> Iterator[None]:
    """Take one of the tables of the job's namespace away for a while."""
    text = node.in_job(job, "nft", "list", "table", *table.split()).stdout
    node.in_job(job, "nft", "delete", "table", *table.split())
    try:
        yield
    finally:
        (node.confdir / "again.nft").write_text(f"add table {table}\ndelete table {table}\n{text}")
        node.in_job(job, "nft", "-f", "/etc/pcocc/again.nft")


ATTACH = """
import fcntl, struct, sys
with open("/dev/net/tun", "r+b", buffering=0) as tun:
    fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", sys.argv[1].encode(), int(sys.argv[2], 16)))
print("attached")
"""


def test_nobody_attaches_to_a_vms_tap(pair: tuple[Node, Guest, Guest]) -> None:
    """A VM step runs in there as the job's user.

    Even the owner gets a tap only as an open descriptor, for one task; only root can attach to a tap.
    """
    node, _vm, _other = pair
    node.in_job(12, "ip", "tuntap", "add", "tap9n0", "mode", "tap", "vnet_hdr")
    node.in_job(12, "ip", "tuntap", "add", "tap7n0", "mode", "tap", "user", "0", "vnet_hdr", "multi_queue")  # as root makes them
    try:
        for name, flags in (("tap9n0", "5002"), ("tap8n0", "5002"), ("tap7n0", "5102")):
            attempt = node.in_job(12, *NOBODY, PYTHON, "-c", ATTACH, name, flags, check=False)
            assert attempt.returncode != 0 and "PermissionError" in attempt.stderr
        for name, flags in (("tap9n0", "5002"), ("tap7n0", "5102")):
            assert node.in_job(12, PYTHON, "-c", ATTACH, name, flags).stdout == "attached\n"
    finally:
        node.in_job(12, "ip", "link", "del", "tap9n0")
        node.in_job(12, "ip", "link", "del", "tap7n0")
