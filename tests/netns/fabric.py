"""Two nodes made of network and mount namespaces, where root's helper runs as it does on a real node."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pcocc_runtime import naming
from pcocc_runtime.documents.boot_step import BootStep, parse_boot_step
from pcocc_runtime.documents.layout import NodeLayout
from pcocc_runtime.documents.node import NodeFacts, decode_node
from pcocc_runtime.system import libc, process
from tests.waiting import limit

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "pcocc.yaml": "accel: tcg\n",
    "networks.yaml": "default:\n  type: ethernet\n  settings:\n    network-layer: L3\n    int-network: 10.200.0.0/16\n",
    "resources.yaml": "default:\n  networks: [default]\n  default: true\n",
    "templates.yaml": "{}\n",
}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
HELPER = (sys.executable, "-c", "import sys; from pcocc_runtime.node.main import main; sys.exit(main())")
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_PREPARE = """
mount --make-rprivate /
mount -t tmpfs run /run
mkdir -p /run/netns /etc/pcocc /var/lib
mount --bind {confdir} /etc/pcocc
mount -t tmpfs lib /var/lib
mkdir -p /var/lib/misc
ip link set lo up
echo ready
exec cat
"""


class Node:
    """A node: a shell that holds the namespaces, and `run` to do something in them."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name, self.started = name, set[int]()
        self.confdir = directory / f"etc-{name}"
        self.confdir.mkdir(mode=0o755)
        for file, text in SETTINGS.items():
            (self.confdir / file).write_text(text)
        script = _PREPARE.format(confdir=self.confdir)
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "bash", "-ec", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "ready\n"

    def configure(self, networks: dict[str, str], sets: dict[str, list[str]]) -> None:
        """Write networks, each with its settings as YAML, and resource sets; the first of these is the default."""
        lines = [f"{name}: {{type: ethernet, settings: {settings}}}" for name, settings in networks.items()]
        (self.confdir / "networks.yaml").write_text("\n".join(lines) + "\n")
        first = next(iter(sets))
        lines = [f"{name}: {{networks: {names}, default: {str(name == first).lower()}}}" for name, names in sets.items()]
        (self.confdir / "resources.yaml").write_text("\n".join(lines).replace("'", "") + "\n")

    def run(self, *argv: str, text: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in the node's namespaces."""
        done = subprocess.run(
            ["nsenter", f"--target={self.holder.pid}", "--net", "--mount", *argv],
            input=text, capture_output=True, text=True, timeout=limit(60), check=False, env=ENVIRONMENT,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def helper(self, verb: str, text: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run root's node helper as the plugin would."""
        before = find_dnsmasq()
        with adopting():
            try:
                return self.run(*HELPER, verb, text=text, check=check)
            finally:
                self.started |= {pid for pid in find_dnsmasq() - before if read_parent(pid) == os.getpid()}

    def facts(self, job: int) -> NodeFacts:
        """Return what the helper has left here for launchers and observers."""
        return decode_node(self.run("cat", f"/run/pcocc/{job}/node.json").stdout.encode(), job)

    def in_job(self, job: int, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in the job's namespace on this node."""
        return self.run("ip", "netns", "exec", f"pcocc-{job}", *argv, check=check)

    def stepd(self, job: int) -> int:
        """Return the process that stands for the slurmstepd of a job."""
        return int(json.loads(self.run("cat", f"/run/pcocc/.state/{job}.json").stdout)["stepd"]["pid"])

    def leftovers(self) -> str:
        """Return what there is of ours on the node: nothing when it is clean."""
        folders = ("/run/netns", "/run/pcocc", "/run/pcocc/.state", "/var/lib/pcocc/scratch/pcocc")
        script = f"for one in {' '.join(folders)}; do ls -A $one; done; ip -br link | grep -v -e ^lo -e ^eth"
        found = self.run("bash", "-c", script, check=False).stdout.split("\n")
        tables = self.run("nft", "list", "tables").stdout.splitlines()
        found += [table for table in tables if "pcocc" in table and table != "table inet pcocc"]  # the guard stays
        servers = [f"dnsmasq of {job}" for job, _pid in self.servers()]
        return "\n".join([line for line in found if line and line not in (".state", "accel.json", "abilities.json")] + servers)

    def servers(self, job: int | None = None) -> list[tuple[int, int]]:
        """Return job and process of each live dnsmasq that root's helpers have started here, of one job or of all."""
        found = [(process.read_owner(pid) - naming.dnsmasq_uid(0), pid) for pid in find_dnsmasq() & self.started]
        return sorted(one for one in found if one[0] >= 0 and job in (None, one[0]))

    def processes(self) -> list[str]:
        """Return the command lines of live processes that see this node's files."""
        mine = os.readlink(f"/proc/{self.holder.pid}/ns/mnt")
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.readlink(entry / "ns/mnt") == mine:
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return found

    def close(self) -> None:
        """End the node and what runs in it."""
        for pid in self.started:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        self.holder.kill()
        self.holder.communicate()


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Make this process the parent, in the block, of what its descendants leave running: so it can be told from what
    others have started.
    """
    libc.require("prctl", libc.LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    try:
        yield
    finally:
        libc.require("prctl", libc.LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0))


def read_parent(pid: int) -> int:
    """Return a process's parent, 0 when it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def find_dnsmasq() -> set[int]:
    """Return the processes of this machine that are called dnsmasq; those of root's helpers have mounts of their own."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "comm").read_text() == "dnsmasq\n" and process.find_process(int(entry.name)):
                found.add(int(entry.name))
    return found


def connect(one: Node, two: Node) -> None:
    """Join two nodes by an underlay: 192.0.2.1 and 192.0.2.2."""
    one.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(two.holder.pid))
    for node, address in ((one, "192.0.2.1"), (two, "192.0.2.2")):
        node.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        node.run("ip", "link", "set", "eth0", "up")


def request(
    job: int, index: int, stepd: int, step: int = 0, sets: str = "default:4", nodes: tuple[str, ...] = ("192.0.2.1", "192.0.2.2")
) -> str:
    """Return a set-up request for VMs on nodes, two on each, as the plugin's C writes it (spank/stepd.c): it parses to
    just that."""
    lines = [f"job {job}", f"step {step}", "uid 65534", "gid 65534", f"stepd {stepd}", f"index {index}"]
    lines += [f"layout {node} {2 * number}-{2 * number + 1}" for number, node in enumerate(nodes)]
    lines += [f"sets {sets}", "end"]
    layout = tuple(NodeLayout(node, (2 * number, 2 * number + 1)) for number, node in enumerate(nodes))
    counts = tuple((name, int(count)) for name, _colon, count in (word.partition(":") for word in sets.split(",")))
    assert parse_boot_step(lines) == BootStep(job, step, 65534, 65534, stepd, index, layout, counts)
    return "\n".join([*lines, ""])


def request_of(uid: int, job: int, stepd: int, step: int = 0) -> str:
    """Return a user's set-up request for two VMs on the node 192.0.2.1 alone."""
    text = request(job, 0, stepd, step=step, sets="default:2", nodes=("192.0.2.1",))
    return text.replace("uid 65534\ngid 65534", f"uid {uid}\ngid {uid}")


def release(job: int, step: int = 0) -> str:
    """Return a release request."""
    return f"job {job}\nstep {step}\nend\n"


class Guest:
    """A stand-in for a VM: a namespace with a veth that has the VM's MAC, on the job's bridge in place of its tap."""

    def __init__(self, node: Node, job: int, rank: int, network: int = 0, mac: str | None = None) -> None:
        self.node, self.job, self.name = node, job, f"guest{job}-{rank}-{network}"
        self.mac = mac or f"52:54:00:{network << 2:02x}:00:{rank:02x}"
        self.tap = f"tap{rank}n{network}"
        node.run("ip", "netns", "add", self.name)
        groups = f"groups=$(ip -d link show {self.tap} 2>/dev/null | sed -n 's/.* group_fwd_mask \\([0-9a-fx]*\\) .*/\\1/p')"
        replace = (
            f"ip link del {self.tap} 2>/dev/null; ip link add {self.tap} type veth peer name eth0 address {self.mac}"
            f" netns {self.name}"
        )
        bridge = (
            f"ip link set {self.tap} master br{network} up mtu 1450 && ip link set {self.tap} type bridge_slave"
            " group_fwd_mask ${groups:-0}"
        )
        node.in_job(job, "sh", "-c", f"{groups}; {replace} && {bridge}")
        self.run("sh", "-c", "ip link set lo up; ip link set eth0 up mtu 1450")
        # a busy kernel notices the new cable later than we do: until then the bridge forwards nothing to it or from it
        forwarding = f"until bridge link show dev {self.tap} | grep -q 'state forwarding'; do sleep 0.01; done"
        node.in_job(job, "timeout", f"{limit(20):.0f}", "sh", "-c", forwarding)

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in the guest."""
        return self.node.run("ip", "netns", "exec", self.name, *argv, check=check)

    def dhcp(self) -> str:
        """Ask for an address by DHCP, take it, and return all that the server said."""
        script = (
            '[ "$1" = bound ] || exit 0; ip addr replace $ip/$mask dev $interface; ip route replace default via $router; env; '
            "echo nameserver $dns > /run/resolv-guest; true"
        )
        path = f"/run/udhcpc-{self.name}"
        self.node.run("sh", "-c", f"printf '%s\\n' '#!/bin/sh' \"$0\" > {path}; chmod 755 {path}", script)
        options = [word for name in ("search", "mtu", "ntpsrv") for word in ("-O", name)]
        return self.run("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-t", "5", "-T", "1", *options, "-s", path).stdout

    def dhcp6(self) -> None:
        """Wait for a link-local address, then ask for an address by DHCPv6 and take it."""
        base = f"/run/dhclient-{self.name}"
        take = '#!/bin/sh\n[ -z "$new_ip6_address" ] || ip -6 addr replace $new_ip6_address/$new_ip6_prefixlen dev $interface\n'
        self.node.run("sh", "-c", f"printf '%b' \"$0\" > {base}.sh; chmod 755 {base}.sh", take.replace("\n", "\\n"))
        link, own = (
            f"until ip -6 addr show dev eth0 scope {scope} -tentative | grep -q inet6; do sleep 0.05; done"
            for scope in ("link", "global")
        )
        client = f"dhclient -6 -1 -sf {base}.sh -lf {base}.leases -pf {base}.pid -cf /dev/null eth0; kill $(cat {base}.pid)"
        self.run("timeout", "20", "sh", "-c", f"{link}; {client}; {own}")
