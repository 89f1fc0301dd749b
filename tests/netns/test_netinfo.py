"""What `pcocc network` finds on real nodes, asked as the job's unprivileged user inside the job's namespace."""

import importlib.util
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from pcocc_runtime import addressing
from pcocc_runtime.documents import wire
from pcocc_runtime.documents.node_answer import Failure, NodeAnswer, decode_node_answers
from pcocc_runtime.findings import FAILED, Finding
from pcocc_runtime.observe import draw
from pcocc_runtime.observe.check import evaluate
from tests.netns.fabric import ROOT, Guest, Node, request
from tests.netns.lan import NOBODY, answering

Pair = tuple[Node, Node]
# the installed entry point, and only what is installed beside it, for a user who cannot read this checkout
TASK = "import sys; sys.path.insert(0, '/run/lib'); from pcocc_runtime.steps.main import main; sys.exit(main())"


@pytest.fixture
def job(nodes: Pair) -> Iterator[Pair]:
    with set_up(nodes):
        yield nodes


@contextmanager
def set_up(nodes: Pair) -> Iterator[None]:
    """Run job 12 with vm0 and vm1 on the first node, vm2 and vm3 on the second."""
    dns = importlib.util.find_spec("dns")
    assert dns and dns.origin
    stepd = subprocess.Popen(["sleep", "600"])
    for index, node in enumerate(nodes):
        node.helper("setup", request(12, index, stepd.pid))
        node.run("mkdir", "/run/lib")
        node.run("cp", "-r", str(ROOT / "pcocc_runtime"), str(Path(dns.origin).parent), "/run/lib")
        node.run("chmod", "-R", "a+rX", "/run/lib")
    try:
        yield
    finally:
        stepd.kill()
        stepd.wait()


def start_guests(nodes: Pair, *ranks: int) -> list[Guest]:
    guests = [Guest(nodes[rank // 2], 12, rank) for rank in ranks]
    for guest in guests:
        guest.dhcp()
    return guests


def send(node: Node, task: int, *words: str, job: int = 12) -> list[str]:
    """Run the task of `pcocc network` on a node; return the lines it sends."""
    of_step = (f"{wire.ENV_STEP_VMS}=vm0", f"{wire.ENV_STEP_INSIDE}=1")
    variables = (f"SLURM_JOB_ID={job}", f"SLURM_PROCID={task}", f"SLURMD_NODENAME={node.name}", *of_step)
    argv = (*NOBODY, "env", "-i", "PATH=/usr/bin:/bin", *variables, "/usr/bin/python3", "-IS", "-c", TASK, "@netinfo", *words)
    done = node.in_job(12, *argv)
    assert done.stderr == ""
    return done.stdout.splitlines()


def ask(nodes: Sequence[Node], *words: str) -> list[NodeAnswer]:
    sent = decode_node_answers(line for task, node in enumerate(nodes) for line in send(node, task, *words))
    found = [one for one in sent if isinstance(one, NodeAnswer)]
    assert len(found) == len(nodes), sent
    return found


def check(nodes: Pair) -> tuple[list[str], list[Finding]]:
    """Return the sentences about failures, and all findings."""
    found = evaluate(ask(nodes, "check"), [], None)
    return [one.text for one in found if one.level == FAILED], found


def test_show_draws_what_is_there(job: Pair) -> None:
    one, other = start_guests(job, 0, 3)
    one.run("ping", "-c3", "-i0.2", "-W5", "-s1000", "10.200.0.4")
    facts = ask(job, "show")
    assert [one.node.name for one in facts] == ["192.0.2.1", "192.0.2.2"]
    assert facts[0].links["vx0"].sent > 3000 and facts[1].links["vx0"].received > 3000
    drawing = draw.render_picture(draw.plan_picture(facts, []))
    assert "default: L3, MTU 1450, 4 VMs, VNI 12, UDP port 24832, 10.200.0.0/16, gateway 10.200.255.254" in drawing
    mac = other.run("cat", "/sys/class/net/eth0/address").stdout.strip()
    [line] = [line for line in drawing.splitlines() if "vm3 eth0" in line]
    assert line.partition("vm3 eth0")[2].split()[:3] == ["tap3n0", "10.200.0.4", mac]
    assert any("way out" in line and "uplink" in line for line in drawing.splitlines())


def test_all_is_well(job: Pair) -> None:
    start_guests(job, 0, 1, 2, 3)
    failures, found = check(job)
    assert failures == []
    assert [one.text for one in found if one.level == "ok"][:3] == [
        "default: its devices are up on 2 nodes",
        "default: 4 VMs answer from 2 nodes, packets of 1450 bytes too",
        "default: DNS knows VMs by name and by address on 2 nodes",
    ]
    assert any("a DHCP server listens on every node" in one.text for one in found)


def test_a_vm_that_is_not_there_answers_nobody(job: Pair) -> None:
    start_guests(job, 0, 1, 2)
    assert check(job)[0] == ["default: vm3 on 192.0.2.2 (10.200.0.4) answers none of the nodes"]


def test_a_blocked_tunnel_is_told_from_dead_vms(job: Pair) -> None:
    start_guests(job, 0, 1, 2, 3)
    job[0].run(
        "nft",
        "add table ip site; add chain ip site in { type filter hook input priority 0; }; add rule ip site in udp dport"
        " 24832 drop",
    )
    assert check(job)[0] == [
        "default: 192.0.2.1 does not reach vm[2-3] on 192.0.2.2; other nodes do",
        "default: 192.0.2.2 does not reach vm[0-1] on 192.0.2.1; other nodes do",
    ]


def test_a_narrow_way_is_told_from_a_blocked_one(job: Pair) -> None:
    start_guests(job, 0, 1, 2, 3)
    job[0].in_job(12, "ip", "link", "set", "vx0", "mtu", "1400")
    assert check(job)[0] == [
        "default: vx0 (its tunnel) has MTU 1400, not 1450 on 192.0.2.1",
        "default: packets of 1450 bytes do not get from 192.0.2.1 to vm[2-3] on 192.0.2.2; small ones do",
    ]


def test_a_vm_that_answers_ssh_only_is_noted(job: Pair) -> None:
    guests = start_guests(job, 0, 1, 2, 3)
    guests[3].run(
        "nft",
        "add table ip g; add chain ip g in { type filter hook input priority 0; }; add rule ip g in icmp type echo-request drop",
    )
    sshd = "import socket, time\nwire = socket.create_server(('', 22), backlog=9)\nprint('ready', flush=True)\ntime.sleep(600)"
    words = ["nsenter", f"--target={job[1].holder.pid}", "--net", "--mount", "ip", "netns", "exec", guests[3].name]
    listener = subprocess.Popen([*words, "/usr/bin/python3", "-c", sshd], stdout=subprocess.PIPE, text=True)
    try:
        assert listener.stdout and listener.stdout.readline() == "ready\n"
        failures, found = check(job)
    finally:
        listener.kill()
        listener.communicate()
    assert failures == []
    assert any(one.text == "default: vm3 answered ssh but no ping, so large packets were not tried" for one in found)


def test_a_dead_dnsmasq_is_told(job: Pair) -> None:
    start_guests(job, 0, 1, 2, 3)
    ((_job, server),) = job[1].servers(12)
    os.kill(server, signal.SIGKILL)
    assert check(job)[0] == [
        "default: the DNS server at 10.200.255.254 does not answer on 192.0.2.2",
        "no DHCP server listens on 192.0.2.2",
    ]


def test_a_missing_device_is_told(job: Pair) -> None:
    start_guests(job, 0, 1, 2)
    job[1].in_job(12, "ip", "link", "del", "tap3n0")
    assert check(job)[0][0] == "default: tap3n0 (vm3) is missing on 192.0.2.2"


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("192.0.2.2", ""),
        ("192.0.2.2:53", ""),
        ("192.0.2.2:54", "192.0.2.2:54 takes no connection"),
        ("192.0.2.1", "192.0.2.1 does not answer"),
        ("192.0.2.9", "192.0.2.9 does not answer"),
    ],
)
def test_a_machine_outside_is_tried(job: Pair, target: str, found: str) -> None:
    with answering(job[1], 53):
        [one] = ask(job[:1], "check", target)
    assert one.reports[0].outbound == found


@pytest.mark.parametrize(
    ("outbound", "found"), [("none", None), ("[198.51.100.0/24]", None), ("[198.51.100.0/24, 192.0.2.0/30]", ""), ("all", "")]
)
def test_only_what_may_be_reached_outside_is_tried(nodes: Pair, outbound: str, found: str | None) -> None:
    for node in nodes:
        node.configure({"default": f"{{allow-outbound: {outbound}}}"}, {"default": ["default"]})
    with set_up(nodes):
        [one] = ask(nodes[:1], "check", "192.0.2.2")
    assert one.reports[0].outbound == found


def test_a_network_without_addresses_is_looked_at(nodes: Pair) -> None:
    for node in nodes:
        node.configure({"lan": "{}", "pv": "{network-layer: L2, mtu: 9000}"}, {"default": ["lan", "pv"]})
    with set_up(nodes):
        nodes[1].in_job(12, "ip", "link", "set", "vx1", "down")
        facts = ask(nodes, "check")
    found = evaluate(facts, [], None)
    assert "pv: vx1 (its tunnel) is down on 192.0.2.2" in [one.text for one in found if one.level == FAILED]
    assert [
        [one.network for one in answer.node.interfaces[rank]] for answer, rank in zip(facts, (0, 3), strict=True)
    ] == [[0, 1]] * 2
    assert facts[0].node.networks[1].mtu == 8950


SITE = "site: {type: bridged-ethernet, settings: {host-bridge: lan0, tap-prefix: site}}\n"


def test_a_network_on_a_bridge_of_the_site_is_not_asked_for_a_tunnel(nodes: Pair) -> None:
    for node in nodes:
        node.configure({"lan": "{}"}, {"default": ["site", "lan"]})
        with (node.confdir / "networks.yaml").open("a") as file:
            file.write(SITE)
        node.run("sh", "-c", "ip link add lan0 type bridge; ip link set lan0 up")
    with set_up(nodes):
        facts = ask(nodes, "check")
        nodes[1].in_job(12, "ip", "link", "set", "tap3n0", "down")
        broken = ask(nodes, "check")
    said = [(one.level, one.text) for one in evaluate(facts, [], None) if one.text.startswith("site: ")]
    assert said == [
        ("ok", "site: its devices are up on 2 nodes"),
        ("note", "site: pcocc gives no addresses on it, so only its devices were checked"),
    ]
    assert "site: tap3n0 (vm3) is down on 192.0.2.2" in [one.text for one in evaluate(broken, [], None) if one.level == FAILED]
    drawing = draw.render_picture(draw.plan_picture(facts, []))
    assert "site: bridged, MTU 1500, 4 VMs\n" in drawing and addressing.bridged_mac(12, 3, 0) in drawing


@pytest.mark.parametrize(
    ("words", "number", "said"),
    [
        (("show",), 13, "one: the VMs of job 13 are not running on this node"),
        (("draw",), 12, "one: usage: @netinfo show [ports] | check [ADDRESS[:PORT]]"),
        ((), 12, "one: usage: @netinfo show [ports] | check"),
    ],
)
def test_a_node_that_cannot_answer_sends_why(job: Pair, words: tuple[str, ...], number: int, said: str) -> None:
    [one] = decode_node_answers(send(job[0], 0, *words, job=number))
    assert isinstance(one, Failure) and said in one.sentence


def test_another_user_learns_nothing(job: Pair) -> None:
    done = job[0].in_job(12, "setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", "ls", "/run/pcocc/12", check=False)
    assert done.returncode != 0 and "Permission denied" in done.stderr
