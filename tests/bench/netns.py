"""Networks of a job in namespaces: `python -m tests.bench.netns [NAME...]`, as root. Each figure is printed beside its
baseline of the same run.

Baselines are made with plain ip(8) and bridge(8), without filters. Nothing here fails on a clock.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pcocc_runtime.documents.boot_step import parse_boot_step
from pcocc_runtime.networks import dnsmasq, routes
from pcocc_runtime.networks.kinds import EthernetNetwork
from pcocc_runtime.networks.plan import Routed, plan_networks
from tests.bench.plot import render_plot
from tests.netns.fabric import HELPER, Guest, Node, connect, release, request

PEERS, OWN, EACH = 1023, 64, 10
SIZES = (1, 64, 128, 256, 384, 512, 640, 768, 896, 1024)  # nodes
SHAPES = ((1, 1), (1, 9), (8, 9), (64, 1), (64, 3), (64, 9))  # VMs and networks
PLOT = Path(__file__).resolve().parents[2] / "docs" / "planning.svg"
JOB = 12


def large(stepd: int) -> str:
    """Return the request of a node with 64 VMs and 1,023 peers of ten."""
    lines = [f"job {JOB}", "step 0", "uid 65534", "gid 65534", f"stepd {stepd}", "index 0", f"layout 172.16.0.1 0-{OWN - 1}"]
    for peer in range(1, PEERS + 1):
        first = OWN + (peer - 1) * EACH
        lines.append(f"layout 172.16.{1 + (peer >> 8)}.{peer & 255} {first}-{first + EACH - 1}")
    return "\n".join([*lines, f"sets default:{OWN + PEERS * EACH}", "end", ""])


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of wall clock, and of CPU in child processes, that a call takes."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - begin, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_node(directory: Path, rounds: int) -> None:
    """Set-up and release of the large job, against the same links, routes and entries by one `ip -batch` and `bridge -batch`."""
    node = Node(directory, "large")
    stepd = subprocess.Popen(["sleep", "600"])
    try:
        node.run("sh", "-c", "ip link add eth0 type veth peer name eth1; ip addr add 172.16.0.1/16 dev eth0; ip link set eth0 up")
        text = large(stepd.pid)
        samples: dict[str, list[tuple[float, float]]] = {"set-up": [], "release": [], "by hand": []}
        for _ in range(rounds):
            samples["set-up"].append(timed(lambda: node.run(*HELPER, "setup", text=text)))
            samples["release"].append(timed(lambda: node.run(*HELPER, "release", text=release(JOB))))
            samples["by hand"].append(timed(lambda: by_hand(node, text)))
            node.run("ip", "netns", "del", "hand")
        for name, found in samples.items():
            wall, cpu = (statistics.median(values) for values in zip(*found, strict=True))
            print(f"{name}, {OWN} VMs, {PEERS} peers: {wall:.2f} s wall, {cpu:.2f} s CPU (median of {len(found)})")
    finally:
        stepd.kill()
        stepd.wait()
        node.close()


def by_hand(node: Node, text: str) -> None:
    """Make the same links and entries with plain commands."""
    step = parse_boot_step(text.splitlines())
    (plan,) = plan_networks(step, {"default": EthernetNetwork("default")}, {"default": ("default",)})
    assert isinstance(plan, Routed)
    links = [f"link add br0 address {plan.bridge_mac} mtu 1450 type bridge", "link set br0 up"]
    links += [f"addr add {address}/16 dev br0" for address in (plan.gateway, plan.node_address)]
    links += [f"link add vx0 address {plan.wire_mac} mtu 1450 type vxlan id 99 dstport 24000 nolearning", "link set vx0 up"]
    for tap in plan.taps:
        links += [f"tuntap add {tap.name} mode tap vnet_hdr", f"link set {tap.name} mtu 1450 master br0 up"]
    node.run("ip", "netns", "add", "hand")
    node.run("ip", "-n", "hand", "-batch", "-", text="\n".join(links) + "\n" + routes.render_routes(plan))
    addresses = {peer.name: peer.name for peer in step.nodes}
    node.run("bridge", "-n", "hand", "-batch", "-", text=routes.render_forwarding(plan, addresses))


def measure_plan(_directory: Path, rounds: int) -> None:
    """Planning for clusters of ten VMs a node, as one node sees it, each in a fresh process; the plot goes into docs."""
    found = []
    for nodes in SIZES:
        lines = [f"job {JOB}", "step 0", "uid 1", "gid 1", "stepd 1", f"index {nodes // 2}"]
        lines += [f"layout n{node} {EACH * node}-{EACH * (node + 1) - 1}" for node in range(nodes)]
        text = "\n".join([*lines, f"sets default:{EACH * nodes}", "end", ""])
        code = "from tests.bench.netns import plan_once; plan_once()"
        run = [sys.executable, "-c", code]
        done = (subprocess.run(run, input=text, capture_output=True, text=True, check=True).stdout for _ in range(rounds))
        seconds, memory = (statistics.median(values) for values in zip(*map(json.loads, done), strict=True))
        found.append((EACH * nodes, 1000 * seconds, memory / 1024))
        print(f"plan, {EACH * nodes:,} VMs on {nodes:,} nodes: {seconds:.3f} s, {memory / 1024:.0f} MiB at most")
    print(f"promised for {EACH * SIZES[-1]:,} VMs: 0.3 s, 60 MiB")
    PLOT.write_text(render_plot("Planning as one node sees it", "VMs, ten a node", ("ms", "MiB at most"), found))


def plan_once() -> None:
    """Plan what is on stdin, to the text that is applied, and print the seconds and the process's largest size in KiB."""
    begin = time.monotonic()
    step = parse_boot_step(sys.stdin)
    (plan,) = plan_networks(step, {"default": EthernetNetwork("default")}, {"default": ("default",)})
    assert isinstance(plan, Routed)
    routes.render_routes(plan)
    routes.render_forwarding(plan, {node.name: "192.0.2.1" for node in step.nodes})
    dnsmasq.render_dnsmasq(plan, ())
    seconds = time.monotonic() - begin
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))


def measure_path(directory: Path, rounds: int) -> None:
    """TCP throughput and round trip between two VMs on two nodes, the product's path against bridge, VXLAN, bridge by hand."""
    one, two = Node(directory, "one"), Node(directory, "two")
    stepd = subprocess.Popen(["sleep", "900"])
    try:
        connect(one, two)
        for index, node in enumerate((one, two)):
            node.helper("setup", request(JOB, index, stepd.pid))
            make_hand_path(node, index)
        pair = Guest(one, JOB, 0), Guest(two, JOB, 2)
        for guest in pair:
            guest.dhcp()
        paths = {"product": ((one, pair[0].name), (two, pair[1].name), "10.200.0.3"),
                 "by hand": ((one, "byhand"), (two, "byhand"), "10.99.0.2")}  # fmt: skip
        rates: dict[str, list[float]] = {name: [] for name in paths}
        trips: dict[str, list[float]] = {name: [] for name in paths}
        for number in range(rounds):  # each round begins with the other one, so that a drift of the machine's speed cancels
            for name in sorted(paths, reverse=bool(number % 2)):
                client, server, address = paths[name]
                rates[name].append(throughput(client, server, address))
                trips[name].append(round_trip(client, address))
        for what, found, unit, promise in (("TCP throughput", rates, "Gbit/s", "0.97"), ("round trip", trips, "us", "1.05")):
            mine, hand = (statistics.median(found[name]) for name in ("product", "by hand"))
            ratios = sorted(a / b for a, b in zip(found["product"], found["by hand"], strict=True))
            middle = f"{ratios[len(ratios) // 4]:.3f} to {ratios[-1 - len(ratios) // 4]:.3f}"
            told = f"ratio of {rounds} pairs {statistics.median(ratios):.3f} (half of them {middle}; promise {promise})"
            print(f"{what}: {mine:.2f} {unit}, by hand {hand:.2f}, {told}", flush=True)
    finally:
        stepd.kill()
        stepd.wait()
        one.close()
        two.close()


def make_hand_path(node: Node, index: int) -> None:
    """Make a guest behind a bridge with a VXLAN port."""
    node.run("sh", "-ec", f"""
ip link add hb0 mtu 1450 type bridge; ip link set hb0 up
ip link add hx0 type vxlan id 77 dstport 4790 remote 192.0.2.{2 - index} local 192.0.2.{index + 1}
ip link set hx0 mtu 1450 master hb0 up
ip netns add byhand
ip link add hg0 mtu 1450 type veth peer name eth0 mtu 1450 netns byhand
ip link set hg0 master hb0 up
ip -n byhand addr add 10.99.0.{index + 1}/24 dev eth0; ip -n byhand link set eth0 up""")  # fmt: skip


def inside(where: tuple[Node, str], *argv: str) -> str:
    """Run a program in a namespace of a node and return what it prints."""
    node, name = where
    return node.run("ip", "netns", "exec", name, *argv).stdout


def throughput(client: tuple[Node, str], server: tuple[Node, str], address: str) -> float:
    """Return Gbit/s of one TCP connection over three seconds."""
    inside(server, "iperf3", "-s", "-1", "-D")
    inside(server, "sh", "-c", "until ss -tlnH | grep -q :5201; do sleep 0.02; done")
    told = json.loads(inside(client, "iperf3", "-c", address, "-t", "3", "-O", "1", "-J"))
    return float(told["end"]["sum_received"]["bits_per_second"]) / 1e9


def round_trip(client: tuple[Node, str], address: str) -> float:
    """Return the mean of 20,000 round trips, each sent when the last has come back, in microseconds."""
    text = inside(client, "ping", "-q", "-A", "-c", "20000", address)
    return int(text.partition(" time ")[2].partition("ms")[0]) / 20


def measure_dhcp(directory: Path, rounds: int) -> None:
    """64 DHCP clients that start at once on a node."""
    node = Node(directory, "dhcp")
    stepd = subprocess.Popen(["sleep", "600"])
    try:
        lines = [
            f"job {JOB}", "step 0", "uid 65534", "gid 65534", f"stepd {stepd.pid}", "index 0",
            f"layout 127.0.0.1 0-{OWN - 1}",
        ]
        node.helper("setup", "\n".join([*lines, f"sets default:{OWN}", "end", ""]))
        guests = [Guest(node, JOB, rank) for rank in range(OWN)]
        ask = "busybox udhcpc -f -q -n -t 5 -T 1 -i eth0 -s /bin/true >/dev/null 2>&1"
        script = "".join(f"ip netns exec {guest.name} {ask} & pids=\"$pids $!\"\n" for guest in guests)
        walls = [timed(lambda: node.run("sh", "-ec", script + "for pid in $pids; do wait $pid; done"))[0] for _ in range(rounds)]
        print(
            f"DHCP, {OWN} clients at once: all served in {statistics.median(walls):.2f} s, {max(walls):.2f} at most"
            " (promise 3)", flush=True,
        )
    finally:
        stepd.kill()
        stepd.wait()
        node.close()


def measure_taps(directory: Path, rounds: int) -> None:
    """Set-up and release of a node by VMs and networks, each network with a domain of its own, as its time follows its taps."""
    node = Node(directory, "taps")
    stepd = subprocess.Popen(["sleep", "3600"])
    try:
        for vms, networks in SHAPES:
            names = [f"n{number}" for number in range(networks)]
            settings = "{{int-network: 10.{}.0.0/16, domain-name: {}.x}}"
            node.configure({name: settings.format(number, name) for number, name in enumerate(names)}, {"all": names})
            head = [f"job {JOB}", "step 0", "uid 65534", "gid 65534", f"stepd {stepd.pid}", "index 0"]
            text = "\n".join([*head, f"layout 127.0.0.1 0-{vms - 1}", f"sets all:{vms}", "end", ""])
            made, gone = [], []
            for _ in range(rounds):
                made.append(timed(lambda text=text: node.helper("setup", text)))
                gone.append(timed(lambda: node.helper("release", release(JOB))))
            told = "; ".join(
                f"{what} {wall:.2f} s wall, {cpu:.2f} s CPU"
                for what, found in (("set-up", made), ("release", gone))
                for wall, cpu in [map(statistics.median, zip(*found, strict=True))]
            )
            print(f"{vms} VMs, {networks} networks, {vms * networks} taps: {told} (medians of {rounds})", flush=True)
    finally:
        stepd.kill()
        stepd.wait()
        node.close()


ALL = {
    "plan": (measure_plan, 5), "node": (measure_node, 9), "taps": (measure_taps, 5), "dhcp": (measure_dhcp, 5),
    "path": (measure_path, 15),
}  # fmt: skip


def main() -> None:
    """Measure what is named, or everything."""
    parser = argparse.ArgumentParser(description="Measure networks in namespaces, and print a line for each figure.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; default all")
    parser.add_argument("--rounds", type=int, help="how often each is repeated")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(ALL))
    if unknown:
        parser.error(f"{unknown[0]!r} is not measured here; choose of {', '.join(ALL)}")
    with tempfile.TemporaryDirectory(dir="/root") as directory:
        for name in arguments.names or ALL:
            measure, rounds = ALL[name]
            measure(Path(directory), arguments.rounds or rounds)


if __name__ == "__main__":
    main()
