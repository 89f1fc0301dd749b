"""The way out of a job's namespace and the ports that lead into it: whom VMs reach, from which address, and who reaches them.

192.0.2.1 and 192.0.2.2 are nodes, 192.0.2.9 and 192.0.2.10 are other machines.
"""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from pcocc_runtime.documents.node import PortForward
from tests.netns.fabric import Guest, Node, release, request
from tests.netns.lan import NOBODY, PYTHON, answering, ask, join, started

ONE, TWO, OUT, FAR = "192.0.2.1", "192.0.2.2", "192.0.2.9", "192.0.2.10"
NETWORKS = {
    "open": "{int-network: 10.200.0.0/16}", "shut": "{int-network: 10.201.0.0/16, allow-outbound: none}",
    "some": f"{{int-network: 10.202.0.0/16, allow-outbound: [{FAR}/32, 203.0.113.0/24, 203.0.113.128/25]}}",
    "inward": (
        "{int-network: 10.203.0.0/16, allow-outbound: none, reverse-nat: {vm-port: 22, min-host-port: 60222,"
        " max-host-port: 60225}}"
    ),
    "kept": "{int-network: 10.204.0.0/16, manage-ip-forward: false}",
}
SETS = {**{name: [name] for name in NETWORKS}, "both": ["shut", "some"]}
SetUp = Callable[..., Guest]


class Site:
    def __init__(self, directory: Path, stepd: int) -> None:
        self.stepd = stepd
        self.switch = Node(directory, "switch")
        self.hosts = {address: Node(directory, address) for address in (ONE, TWO, OUT, FAR)}
        self.node, self.out = self.hosts[ONE], self.hosts[OUT]
        self.jobs: set[int] = set()

    def set_up(self, job: int, sets: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Set a job of two VMs up on the first node alone."""
        self.jobs.add(job)
        return self.node.helper("setup", request(job, 0, self.stepd, sets=sets, nodes=(ONE,)), check=check)

    def guest(self, job: int, rank: int = 0, network: int = 0) -> Guest:
        guest = Guest(self.node, job, rank, network)
        guest.dhcp()
        return guest

    def ports(self, job: int) -> tuple[PortForward, ...]:
        return self.node.facts(job).forwards

    def release(self) -> None:
        for job in [*self.jobs, *self.jobs]:  # a second time does no harm
            self.node.helper("release", release(job))
        self.jobs.clear()
        self.node.run("sh", "-c", "for n in /run/netns/guest*; do [ ! -e $n ] || ip netns del ${n##*/}; done")


@pytest.fixture(scope="module")
def all_hosts() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(dir="/root") as directory:
        stepd = subprocess.Popen(["sleep", "900"])
        site = Site(Path(directory), stepd.pid)
        try:
            join(site.switch, site.hosts)
            for node in site.hosts.values():
                node.configure(NETWORKS, SETS)
            yield site
        finally:
            stepd.kill()
            stepd.wait()
            for node in (site.switch, *site.hosts.values()):
                node.close()


@pytest.fixture
def site(all_hosts: Site) -> Iterator[Site]:
    yield all_hosts
    all_hosts.release()
    assert all_hosts.node.leftovers() == ""


@contextmanager
def changed(node: Node, table: str, change: Callable[[str], str], job: int | None = None) -> Iterator[None]:
    """Load a table again with other rules for a while, or without any."""
    run = node.run if job is None else lambda *argv: node.in_job(job, *argv)
    text = run("nft", "list", "table", *table.split()).stdout
    for content in (change(text), text):
        (node.confdir / "table.nft").write_text(f"add table {table}\ndelete table {table}\n{content}")
        run("nft", "-f", "/etc/pcocc/table.nft")
        if content is not text:
            yield


def gone(_text: str) -> str:
    return ""


def unguarded(text: str) -> str:
    """Leave only that part of a job's table that lets its packets in, without which nothing passes (test_flushed.py)."""
    head, enter = text.splitlines()[0], re.search(r"\tchain enter \{.*?\n\t\}\n", text, re.DOTALL)
    assert enter
    return f"{head}\n{enter[0]}}}\n"


def local(text: str) -> str:
    """Take the rules about link-local destinations out of a table."""
    return "\n".join(line for line in text.splitlines() if "169.254.0.0/16" not in line)


def test_a_vm_reaches_other_machines_as_its_node(site: Site) -> None:
    site.set_up(21, "open:2")
    vm = site.guest(21)
    with answering(site.out, 80):
        answers = ask(vm, f"tcp,{OUT},80", f"udp,{OUT},80")
    assert [answer.split()[0] for answer in answers.values()] == [ONE, ONE]
    vm.run("ping", "-c1", "-W5", OUT)


def test_no_packet_of_a_vm_leaves_from_a_privileged_port(site: Site) -> None:
    site.set_up(21, "open:2")
    vm = site.guest(21)

    def seen(*sources: int) -> list[int]:
        questions = [f"{kind},{OUT},80,{source}" for kind in ("tcp", "udp") for source in sources]
        return sorted(int(answer.split()[1]) for answer in ask(vm, *questions).values())

    def keep(text: str) -> str:
        return text.replace(" to :1024-65535", "")

    with answering(site.out, 80):
        ports = seen(1, 700, 1023)
        assert len(ports) == 6 and ports[0] >= 1024
        with changed(site.node, "inet pcocc-21", keep), changed(site.node, "inet pcocc", keep, job=21):
            assert seen(2, 701, 1022) == [2, 2, 701, 701, 1022, 1022]


@pytest.mark.parametrize(("sets", "reached"), [("open", {OUT, FAR}), ("some", {FAR}), ("shut", set()), ("inward", set())])
def test_vms_reach_what_allow_outbound_allows(site: Site, sets: str, reached: set[str]) -> None:
    site.set_up(22, f"{sets}:2")
    vm = site.guest(22)
    with answering(site.out, 80), answering(site.hosts[FAR], 80):
        questions = {f"{kind},{address},80": address for kind in ("tcp", "udp") for address in (OUT, FAR)}
        assert {questions[question] for question in ask(vm, *questions)} == reached
    assert (vm.run("ping", "-c1", "-W1", OUT, check=False).returncode == 0) == (OUT in reached)


def test_outbound_is_refused_at_once_not_swallowed(site: Site) -> None:
    site.set_up(22, "some:2")
    vm = site.guest(22)
    assert "filtered" in vm.run("ping", "-c1", "-W5", OUT, check=False).stdout.lower()


def test_without_a_way_out_there_is_no_device_for_it(site: Site) -> None:
    site.set_up(22, "shut:2")
    assert "pcn" not in site.node.run("ip", "-br", "link").stdout
    assert "default" not in site.node.in_job(22, "ip", "route").stdout


def test_a_vm_in_two_networks_has_the_policy_of_each(site: Site) -> None:
    site.set_up(23, "both:2")
    shut, some = site.guest(23, 0, 0), site.guest(23, 0, 1)
    with answering(site.hosts[FAR], 80):
        assert ask(some, f"tcp,{FAR},80")
        assert not ask(shut, f"tcp,{FAR},80")
        with changed(
            site.node, "inet pcocc",
            lambda text: text.replace("policy drop", "policy accept").replace("reject", "accept #"),
            23,
        ):
            assert ask(shut, f"tcp,{FAR},80")


def test_networks_of_one_cluster_do_not_meet(site: Site) -> None:
    site.set_up(23, "open:1,some:1")
    one, other = site.guest(23, 0, 0), site.guest(23, 1, 1)
    with answering(site.node, 80, netns=other.name):
        assert not ask(one, "tcp,10.202.0.2,80")
        with changed(site.node, "inet pcocc", gone, job=23):
            assert ask(one, "tcp,10.202.0.2,80")


def test_a_vm_reaches_no_service_of_its_own_node(site: Site) -> None:
    site.set_up(24, "open:2")
    vm = site.guest(24)
    questions = [f"{kind},{address},{port}" for kind in ("tcp", "udp") for address in (ONE, "169.254.64.0") for port in (22, 111)]
    with answering(site.node, 22, 111):
        assert not ask(vm, *questions)
        assert vm.run("ping", "-c1", "-W1", ONE, check=False).returncode != 0
        with changed(site.node, "inet pcocc", local, job=24):
            assert not ask(vm, *questions)
            with changed(site.node, "inet pcocc-24", unguarded):
                assert len(ask(vm, *questions)) == len(questions)


def test_a_vm_reaches_no_other_job(site: Site) -> None:
    site.set_up(24, "open:2")
    site.set_up(25, "inward:2")
    vm, other = site.guest(24), site.guest(25)
    host_port = site.ports(25)[0].host_port
    questions = [f"tcp,169.254.64.3,{host_port}", f"tcp,{ONE},{host_port}"]
    with answering(site.node, 22, netns=other.name):
        assert not ask(vm, *questions)
        with changed(site.node, "inet pcocc", local, job=24):
            assert not ask(vm, *questions)
            with changed(site.node, "inet pcocc-24", unguarded), changed(site.node, "inet pcocc-25", unguarded):
                assert list(ask(vm, *questions)) == questions[:1]


def test_a_vm_reaches_no_link_local_service_of_the_site(site: Site) -> None:
    """For example a cloud's metadata server, which gives away the node's secrets."""
    site.set_up(24, "open:2")
    vm = site.guest(24)
    site.out.run("ip", "addr", "replace", "169.254.169.254/32", "dev", "eth0")
    site.node.run("ip", "route", "replace", "169.254.169.254", "dev", "eth0")

    with answering(site.out, 80):
        assert ask(site.node, "tcp,169.254.169.254,80")
        assert not ask(vm, "tcp,169.254.169.254,80")
        with changed(site.node, "inet pcocc", local, job=24):
            assert not ask(vm, "tcp,169.254.169.254,80")
            with changed(site.node, "inet pcocc-24", local):
                assert ask(vm, "tcp,169.254.169.254,80")


def test_ports_of_a_node_lead_to_its_vms(site: Site) -> None:
    site.set_up(26, "inward:2")
    assert site.ports(26) == ((0, 22, 60222), (1, 22, 60223))
    vm = site.guest(26, 1)
    with answering(site.node, 22, netns=vm.name):
        for host in (OUT, TWO):
            assert ask(site.hosts[host], f"tcp,{ONE},60223")[f"tcp,{ONE},60223"].split()[0] == host
        for address in (ONE, "127.0.0.1", "127.0.1.1"):
            assert ask(site.node, f"tcp,{address},60223")
        assert not ask(site.out, f"tcp,{ONE},60222", f"udp,{ONE},60223")
        with changed(site.node, "inet pcocc-26", gone):
            assert not ask(site.out, f"tcp,{ONE},60223")


def test_ports_in_use_are_left_out(site: Site) -> None:
    listener = "import socket; s = socket.create_server(('127.0.0.1', 60222)); print('ready', flush=True); s.accept()"
    with started(site.node, *NOBODY, PYTHON, "-c", listener):
        site.set_up(26, "inward:2")
    assert [one.host_port for one in site.ports(26)] == [60223, 60224]


def test_jobs_set_up_at_once_hold_different_ports(site: Site) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda job: site.set_up(job, "inward:2"), (26, 27)))
    assert sorted(one.host_port for job in (26, 27) for one in site.ports(job)) == [60222, 60223, 60224, 60225]


def test_a_range_used_up_is_a_sentence_and_leaves_nothing(site: Site) -> None:
    site.set_up(26, "inward:2")
    site.set_up(27, "inward:2")
    before = site.node.leftovers()
    done = site.set_up(28, "inward:2", check=False)
    assert done.returncode == 1
    assert done.stdout.startswith(
        "pcocc: error: no port from 60222 to 60225 is free on this node, for reverse-nat of network 'inward'\n"
    )
    assert site.node.leftovers() == before
    site.node.helper("release", release(26))
    site.set_up(28, "inward:2")
    assert [one.host_port for one in site.ports(28)] == [60222, 60223]


def test_a_tunnels_port_held_by_a_user_is_a_sentence_and_leaves_nothing(site: Site) -> None:
    holder = (
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 24832)); print('ready', flush=True);"
        " s.recv(9)"
    )
    with started(site.node, *NOBODY, PYTHON, "-c", holder):
        done = site.set_up(26, "inward:2", check=False)
        assert done.returncode == 1 and done.stderr == ""
        assert "Address already in use" in done.stdout and "ss -lunp" in done.stdout
        assert site.node.leftovers() == ""


def test_setting_up_again_keeps_ports_and_addresses(site: Site) -> None:
    site.set_up(26, "inward:2")
    site.set_up(27, "inward:2")
    before = site.ports(27), site.node.run("ip", "-br", "addr", "show", "pcn27").stdout.split()[2:]
    site.set_up(27, "inward:2")
    assert (site.ports(27), site.node.run("ip", "-br", "addr", "show", "pcn27").stdout.split()[2:]) == before


def test_the_sites_own_tables_are_left_alone(site: Site) -> None:
    text = (
        "table inet site {\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy"
        " accept;\n\t\tcounter accept\n\t}\n}\n"
    )
    (site.node.confdir / "site.nft").write_text(text)
    site.node.run("nft", "-f", "/etc/pcocc/site.nft")
    site.set_up(21, "open:2")
    during = re.findall(r"^table (.*) \{", site.node.run("nft", "list", "ruleset").stdout, re.MULTILINE)
    assert sorted(during) == ["inet pcocc", "inet pcocc-21", "inet site"]
    assert site.node.run("nft", "-s", "list", "table", "inet", "site").stdout == text
    site.release()
    assert site.node.run("nft", "-s", "list", "table", "inet", "site").stdout == text
    site.node.run("nft", "delete", "table", "inet", "site")


def test_a_site_may_forbid_what_we_allow(site: Site) -> None:
    site.set_up(21, "open:2")
    vm = site.guest(21)
    with answering(site.out, 80):
        assert ask(vm, f"tcp,{OUT},80")
        site.node.run("nft", "table inet site { chain forward { type filter hook forward priority 0; policy drop; }; }")
        assert not ask(vm, f"tcp,{OUT},80")
        site.node.run("nft", "delete", "table", "inet", "site")


def test_a_node_forwards_for_its_vms_only(site: Site) -> None:
    """A node that was no router: machines of its LAN do not reach its other interfaces through it."""
    site.node.run(
        "sh", "-c",
        "ip netns add behind; ip link add to0 type veth peer name eth0 netns behind; ip addr add 203.0.113.1/24"
        " dev to0",
    )
    site.node.run("sh", "-c", "ip link set to0 up; ip -n behind addr add 203.0.113.2/24 dev eth0; ip -n behind link set eth0 up")
    site.node.run("ip", "-n", "behind", "route", "add", "default", "via", "203.0.113.1")
    site.out.run("ip", "route", "replace", "203.0.113.0/24", "via", ONE)
    site.set_up(21, "some:2")
    vm = site.guest(21)
    assert site.node.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout == "0\n"
    with answering(site.node, 80, netns="behind"):
        assert ask(vm, "tcp,203.0.113.2,80")
        assert not ask(site.out, "tcp,203.0.113.2,80")
        site.node.run("nft", "flush", "ruleset")
        assert not ask(site.out, "tcp,203.0.113.2,80")
        site.set_up(22, "open:2")
        assert not ask(site.out, "tcp,203.0.113.2,80")
        for name in ("eth0", "to0"):
            site.node.run("ip", "rule", "del", "pref", "24836", "iif", name)
        assert ask(site.out, "tcp,203.0.113.2,80")
        site.node.run("sysctl", "-qw", "net.ipv4.conf.eth0.forwarding=0")  # as it was before the first job
    site.node.run("sh", "-c", "ip link del to0; ip netns del behind")


@pytest.mark.parametrize("forward", ["0", "1"])
def test_forwarding_is_the_sites_when_it_says_so(site: Site, forward: str) -> None:
    site.node.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    site.node.run("sysctl", "-qw", f"net.ipv4.ip_forward={forward}")
    try:
        done = site.set_up(21, "kept:2", check=forward == "1")
        if forward == "0":
            assert done.returncode == 1 and "manage-ip-forward is false" in done.stdout and "net.ipv4.ip_forward=1" in done.stdout
            assert site.node.leftovers() == ""
        else:
            with answering(site.out, 80):
                assert ask(site.guest(21), f"tcp,{OUT},80")
            assert "24836:" not in site.node.run("ip", "rule", "show").stdout
    finally:
        site.node.run("sysctl", "-qw", "net.ipv4.ip_forward=0")


def test_a_job_does_not_wait_for_another_that_is_being_set_up(site: Site) -> None:
    site.set_up(26, "open:2")
    site.jobs.add(27)
    holder = ["nsenter", f"--target={site.node.holder.pid}", "--mount", "flock", "/run/pcocc/.state/26.lock", "cat"]
    with subprocess.Popen(holder, stdin=subprocess.PIPE) as process:
        site.set_up(27, "open:2")
        process.communicate(b"")
