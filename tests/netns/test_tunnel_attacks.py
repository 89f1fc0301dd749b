"""Who may put frames into a job's tunnel: each attack is made by a real process, and succeeds once the wall is taken away.

Job 12 runs on node-one and node-two, job 13 on node-two and node-three; the login host belongs to no job.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pcocc_runtime import addressing
from tests.netns.fabric import Guest, Node, request
from tests.netns.inject import WAYS
from tests.netns.lan import HERE, NOBODY, PYTHON, answering, ask, join, listening

ONE, TWO, THREE, LOGIN = "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.9"
INJECT = (PYTHON, str(HERE / "inject.py"))


@dataclass
class Site:
    hosts: dict[str, Node]
    victim: Guest
    vm_of_13: Guest

    def aim(self, name: str, node: str = ONE, vni: int = 12, source_port: int = 0) -> tuple[str, ...]:
        """Return the command of an attack on vm0 of job 12."""
        link = self.hosts[ONE].in_job(12, "ip", "-o", "link", "show", "vx0").stdout
        mac = self.victim.mac if "master" in link else link.partition("link/ether ")[2].split()[0]
        port = addressing.vxlan_port(12, 0)
        return (*INJECT, name, node, str(port), str(vni), mac, "10.200.0.1", str(source_port))

    def heard_after(self, attack: str) -> list[str]:
        """Run an attack, then send an honest packet through the tunnel; return in which ways the attack reached vm0."""
        with listening(self.victim) as frames:
            ATTACKS[attack](self, attack)
            self.hosts[TWO].in_job(12, "bash", "-c", "echo END >/dev/udp/10.200.0.1/7777")
        return [how for how in WAYS if f"<{attack} {how}>".encode().hex() in "".join(frames)]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(dir="/root") as directory:
        switch = Node(Path(directory), "switch")
        hosts = {address: Node(Path(directory), address) for address in (ONE, TWO, THREE, LOGIN)}
        stepd = subprocess.Popen(["sleep", "600"])
        try:
            join(switch, hosts)
            for index, address in enumerate((ONE, TWO)):
                hosts[address].helper("setup", request(12, index, stepd.pid))
            for index, address in enumerate((TWO, THREE)):
                hosts[address].helper("setup", request(13, index, stepd.pid, nodes=(TWO, THREE)))
            guests = Guest(hosts[ONE], 12, 0), Guest(hosts[TWO], 13, 0)
            for guest in guests:
                guest.dhcp()
            yield Site(hosts, *guests)
        finally:
            stepd.kill()
            stepd.wait()
            for node in (switch, *hosts.values()):
                node.close()


def from_login(site: Site, name: str) -> None:
    site.hosts[LOGIN].run(*NOBODY, *site.aim(name))


def from_login_port(site: Site, name: str) -> None:
    for port in (addressing.vxlan_port(12, 0), 4789, 40000):
        site.hosts[LOGIN].run(*NOBODY, *site.aim(name, source_port=port))


def by_broadcast(site: Site, name: str) -> None:
    site.hosts[LOGIN].run(*NOBODY, *site.aim(name, "192.0.2.255"))


def from_peer(site: Site, name: str) -> None:
    site.hosts[TWO].run(*NOBODY, *site.aim(name))


def from_peer_port(site: Site, name: str) -> None:
    for port in (addressing.vxlan_port(12, 0), 4789, 40000):
        site.hosts[TWO].run(*NOBODY, *site.aim(name, source_port=port))


def from_peer_root(site: Site, name: str) -> None:
    site.hosts[TWO].run(*site.aim(name))


def from_stranger_node(site: Site, name: str) -> None:
    site.hosts[THREE].run(*NOBODY, *site.aim(name))


def from_own_node(site: Site, name: str) -> None:
    for address in (ONE, "127.0.0.1"):
        site.hosts[ONE].run(*NOBODY, *site.aim(name, address))


def from_vm_behind_nat(site: Site, name: str) -> None:
    site.vm_of_13.run(*site.aim(name))


def from_step_in_namespace(site: Site, name: str) -> None:
    site.hosts[TWO].in_job(13, *NOBODY, *site.aim(name))


def from_container(site: Site, name: str) -> None:
    """A container on node-two, which the site hides behind the node's address."""
    node = site.hosts[TWO]
    node.run("bash", "-ec", """[ ! -e /run/netns/box ] || exit 0
        ip netns add box; ip link add box0 type veth peer name eth0 netns box; ip link set box0 up
        ip addr add 172.18.0.1/24 dev box0; sysctl -qw net.ipv4.ip_forward=1
        ip -n box addr add 172.18.0.2/24 dev eth0; ip -n box link set eth0 up; ip -n box route add default via 172.18.0.1
        nft 'table ip site { chain post { type nat hook postrouting priority srcnat; ip saddr 172.18.0.0/24 masquerade; }; }'
        """)  # fmt: skip
    node.run("ip", "netns", "exec", "box", *site.aim(name))


ATTACKS = {
    "from-login-host": from_login,
    "from-login-host-with-known-ports": from_login_port,
    "from-login-host-by-broadcast": by_broadcast,
    "from-peer-node": from_peer,
    "from-peer-node-with-known-ports": from_peer_port,
    "from-peer-node-as-root": from_peer_root,
    "from-node-of-another-job": from_stranger_node,
    "from-own-node": from_own_node,
    "from-vm-of-another-job": from_vm_behind_nat,
    "from-step-of-another-job": from_step_in_namespace,
    "from-container-behind-peer": from_container,
}
JOBS_TABLE, GUARD = "inet pcocc-12", "inet pcocc"
RULE = "pref 24833 ipproto udp dport 24832-25087 blackhole"
WALLS = {
    "from-login-host": [(ONE, JOBS_TABLE)],
    "from-login-host-with-known-ports": [(ONE, JOBS_TABLE)],
    "from-login-host-by-broadcast": [(ONE, JOBS_TABLE)],
    "from-node-of-another-job": [(ONE, JOBS_TABLE), (THREE, GUARD)],
    "from-own-node": [(ONE, JOBS_TABLE), (ONE, GUARD)],
    "from-vm-of-another-job": [(TWO, RULE), (TWO, GUARD)],  # so it is not given the node's address
    "from-step-of-another-job": [(TWO, RULE), (TWO, GUARD)],
    "from-container-behind-peer": [(TWO, RULE), (TWO, GUARD)],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nobody_injects(site: Site, attack: str) -> None:
    assert not site.heard_after(attack)
    with without([(site.hosts[address], table) for address, table in WALLS.get(attack, [(TWO, GUARD)])]):
        assert site.heard_after(attack) == list(WAYS)
    assert not site.heard_after(attack)


@pytest.mark.parametrize(("name", "gone"), [("peers", THREE), ("guard", ONE)])
def test_either_wall_alone_stops_a_node_of_another_job(site: Site, name: str, gone: str) -> None:
    with without([(site.hosts[gone], GUARD if name == "peers" else JOBS_TABLE)]):
        assert not site.heard_after("from-node-of-another-job")


def test_a_node_is_guarded_from_slurmds_start_not_only_while_it_has_a_job(site: Site) -> None:
    with without([(site.hosts[ONE], JOBS_TABLE)]):
        assert site.heard_after("from-login-host")
        site.hosts[LOGIN].helper("start", "")
        assert not site.heard_after("from-login-host")
        site.hosts[LOGIN].run("nft", "delete", "table", *GUARD.split())


def test_another_vni_is_another_network(site: Site) -> None:
    def wrong_vni(site: Site, name: str) -> None:
        for vni in (0, 1, 13, 12 << 8, 0xFFFFFF):
            site.hosts[LOGIN].run(*NOBODY, *site.aim(name, vni=vni))

    ATTACKS["wrong-vni"] = wrong_vni
    try:
        with without([(site.hosts[ONE], JOBS_TABLE)]):
            assert not site.heard_after("wrong-vni")
    finally:
        del ATTACKS["wrong-vni"]


def test_the_kernels_own_tunnels_pass_for_every_user(site: Site) -> None:
    """A step of the job talks to a VM on another node: the packets have the user's socket inside, none outside."""
    with answering(site.hosts[ONE], 22, 7000, netns=site.victim.name):
        inside = ("ip", "netns", "exec", "pcocc-12", *NOBODY)
        assert len(ask(site.hosts[TWO], "tcp,10.200.0.1,22", "udp,10.200.0.1,7000", prefix=inside)) == 2


def test_a_tunnel_sends_from_the_address_its_peers_accept(site: Site) -> None:
    assert f" local {TWO} " in site.hosts[TWO].in_job(12, "ip", "-d", "link", "show", "vx0").stdout


@contextmanager
def without(walls: list[tuple[Node, str]]) -> Iterator[None]:
    """Take tables of hosts, or a rule of their routing, away for a while."""
    texts = [node.run("nft", "list", "table", *wall.split()).stdout if wall != RULE else "" for node, wall in walls]
    for node, wall in walls:
        node.run(*(("nft", "delete", "table") if wall != RULE else ("ip", "rule", "del")), *wall.split())
    try:
        yield
    finally:
        for (node, wall), text in zip(walls, texts, strict=True):
            if wall == RULE:
                node.run("ip", "rule", "add", *wall.split())
                continue
            (node.confdir / "again.nft").write_text(text)
            node.run("nft", "-f", "/etc/pcocc/again.nft")
