"""TCP between two guests, against two QEMUs by hand whose taps are on the same bridges: part of `python -m tests.bench.guest`.

Two guests of a node share a bridge; those of two nodes have one each, joined by VXLAN over a virtual wire.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pcocc_runtime.documents.cluster import Group, Mount
from tests.bench.figures import Figure
from tests.bench.pairs import CPUS, IN_GUEST, Hand, compare, in_turns, open_kvm
from tests.qemu.vm import APPEND, GUEST, Vm

INITRD = "initrd-net"
_SET = 0x400454CA  # TUNSETIFF, linux/if_tun.h
_FLAGS = 0x0002 | 0x1000 | 0x4000 | 0x0100  # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE
_NEWNET = 0x40000000  # linux/sched.h
NODE = """
set -e
ip netns add {name}
ip -n {name} link set lo up
ip -n {name} link add br0 mtu 1450 type bridge
ip -n {name} link set br0 up
for tap in {taps}; do
  ip -n {name} tuntap add $tap mode tap vnet_hdr multi_queue
  ip -n {name} link set $tap mtu 1450 master br0 up
done
"""
WIRE = """
set -e
ip link add wire netns {0} type veth peer name wire netns {1}
n=1
for name in {0} {1}; do
  ip -n $name addr add 192.0.2.$n/24 dev wire
  ip -n $name link set wire up
  ip -n $name link add vx0 type vxlan id 77 dstport 4790 local 192.0.2.$n remote 192.0.2.$((3 - n))
  ip -n $name link set vx0 mtu 1450 master br0 up
  n=$((n + 1))
done
"""
UP = "ip link set eth0 mtu 1450 up; ip addr add 10.99.0.{}/24 dev eth0; mount -t tmpfs tmp /h/tmp; echo $?"


def measure_network(data: Path, guest: Path, rounds: int) -> list[Figure]:
    """iperf3(1) between two guests of a node and of two nodes."""
    one = f"bench-{os.getpid()}"
    other = f"{one}-other"
    taps = ["pcocc0", "pcocc1", "hand0", "hand1"]
    try:
        for name in (one, other):
            subprocess.run(["sh", "-c", NODE.format(name=name, taps=" ".join(taps))], check=True)
        subprocess.run(["sh", "-c", WIRE.format(one, other)], check=True)
        return [
            _measure_pairs(data / where.replace(" ", "-"), guest, rounds, nodes, where)
            for where, nodes in (("a node", (one, one)), ("two nodes", (one, other)))
        ]
    finally:
        for name in (one, other):
            subprocess.run(["ip", "netns", "del", name], check=False)


def _measure_pairs(data: Path, guest: Path, rounds: int, nodes: Sequence[str], where: str) -> Figure:
    pairs: dict[str, list[Vm]] = {"pcocc": [], "hand": []}
    data.mkdir()
    try:
        for rank, node in enumerate(nodes):
            pairs["pcocc"].append(_start(data, guest, rank, _open_tap(node, f"pcocc{rank}")))
            pairs["hand"].append(_start_by_hand(data / f"hand{rank}", guest, rank, _open_tap(node, f"hand{rank}")))
        for vm in (*pairs["pcocc"], *pairs["hand"]):
            vm.connect()  # what a guest prints before that is lost
        for first, vms in ((1, pairs["pcocc"]), (11, pairs["hand"])):
            for rank, vm in enumerate(vms):
                vm.boot()
                assert vm.run(IN_GUEST, 60).splitlines()[-1] == "0", vm.said()
                assert vm.run(UP.format(first + rank), 60).splitlines()[-1] == "0", vm.said()
        ways = {
            name: lambda vms=vms, address=address: _ask(vms[0], vms[1], f"10.99.0.{address}")
            for (name, vms), address in zip(pairs.items(), (2, 12), strict=True)
        }
        return compare(f"TCP between guests of {where}", "Mbit/s", in_turns(rounds, ways), "0.97")  # type: ignore[arg-type]
    finally:
        for vm in (*pairs["pcocc"], *pairs["hand"]):
            vm.close()


def _start(data: Path, guest: Path, rank: int, taps: list[int]) -> Vm:
    group = Group(
        "t", 2, cpus=CPUS, mounts=(Mount("root", "/", "9p", True),), kernel=f"{GUEST}/vmlinux", initrd=f"{GUEST}/{INITRD}",
        append=APPEND,
    )  # fmt: skip
    vm = Vm(data, guest, group, job=7 + rank, rank=rank, taps=[taps], kvm=open_kvm())
    _close(taps)
    return vm


def _start_by_hand(data: Path, guest: Path, rank: int, taps: list[int]) -> Vm:
    data.mkdir()
    (data / "hand").touch()
    vhost = "on" if open_kvm() is not None and os.path.exists("/dev/vhost-net") else "off"
    words = f"tap,id=net0,fds={':'.join(map(str, taps))},vhost={vhost}"
    device = f"virtio-net-pci,netdev=net0,mac=52:54:00:99:00:0{rank},mq=on,vectors={2 * len(taps) + 2}"
    vm = Hand(data, guest, INITRD, ["-netdev", words, "-device", device], taps)
    _close(taps)
    return vm


def _ask(client: Vm, server: Vm, address: str) -> float:
    """Return Mbit/s of one TCP connection over four seconds."""
    listens = "netstat -tln | grep -q :5201; do usleep 20000; done"  # the server of the round before ends a moment later
    server.run(f"while {listens}; chroot /h iperf3 -s -1 -D >/dev/null 2>&1; until {listens}", 60)
    text = client.run(f"chroot /h iperf3 -c {address} -t 4 -O 1 -J 2>&1", 120)
    told = json.loads(text[text.index("{") :])
    assert "error" not in told, told["error"]
    return float(told["end"]["sum_received"]["bits_per_second"]) / 1e6


def _open_tap(node: str, name: str) -> list[int]:
    """Open a tap in another network namespace, once for each queue."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net", "rb") as own, open(f"/run/netns/{node}", "rb") as there:
        assert libc.setns(there.fileno(), _NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            taps = [os.open("/dev/net/tun", os.O_RDWR) for _ in range(CPUS)]
            for tap in taps:
                fcntl.ioctl(tap, _SET, struct.pack("16sH22x", name.encode(), _FLAGS))
        finally:
            assert libc.setns(own.fileno(), _NEWNET) == 0, os.strerror(ctypes.get_errno())
    return taps


def _close(taps: list[int]) -> None:
    for tap in taps:
        os.close(tap)
