"""What @topology, the kernel and a guest's own programs say of a VM: each must say the same."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.node.node import Job, Node

# the node's own programs in a guest that has none; its kernel has virtiofs, and no 9p
MOUNT = "--pcocc-mount=usr=/usr,type=virtiofs,readonly"
FOREIGN = "/mnt/usr/lib64/ld-linux-x86-64.so.2 --library-path /mnt/usr/lib/x86_64-linux-gnu /mnt/usr/bin/"
PACKAGES = "cat /sys/devices/system/cpu/cpu*/topology/physical_package_id"


def look(job: Job) -> Any:
    """Return what @topology says of a VM that must run as planned."""
    done = job.srun("--pcocc-vm=vm0", "@topology", "--check", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def read_threads(node: Node, pid: int) -> dict[str, str]:
    """Return the CPUs that QEMU's threads may run on, by their names, as the kernel has it."""
    lines = node.out(f"cd /proc/{pid}/task; for one in *; do echo $(taskset -cp $one | sed 's/.*: //') $(cat $one/comm); done")
    return {name: cpus for cpus, name in (line.split(" ", 1) for line in lines.splitlines())}


def read_bound(node: Node, pid: int) -> dict[str, set[str]]:
    """Return the nodes that memory lies on, by the policy of its mapping (numa_maps)."""
    found: dict[str, set[str]] = {}
    for line in node.read(f"/proc/{pid}/numa_maps").splitlines():
        if " bind:" in line:
            found.setdefault(line.split()[1], set()).update(re.findall(r" N(\d)=", line))
    return found


def check_guest(job: Job, sockets: str, nodes: list[str], threads: int = 1) -> Any:
    """Check that a VM is its part of the node, and that lscpu(1) and numactl(8) see it so in the guest; return @topology.

    `sockets` has a digit for each CPU, `nodes` the CPUs of each NUMA node, both as in the guest.
    """
    told, [pid] = look(job), job.node.qemus(job.number).values()
    assert told["accel"] == "kvm" and len(told["vcpus"]) == len(sockets)
    own = read_threads(job.node, pid)
    for place, one in enumerate(told["vcpus"]):
        assert own[f"CPU {place}/KVM"] == str(one["host"]["number"]), own
    assert read_bound(job.node, pid) == {f"bind:{one['host']}": {str(one["host"])} for one in told["nodes"]}
    assert job.vm(PACKAGES).split() == [*sockets]
    seen = json.loads(job.vm(f"{FOREIGN}lscpu --json"))["lscpu"]
    fields = {one["field"].rstrip(":"): one["data"] for one in flatten(seen)}
    shape = [fields[name] for name in ("CPU(s)", "Socket(s)", "Thread(s) per core")]
    assert shape == [str(len(sockets)), str(len({*sockets})), str(threads)], fields
    shown = job.vm(f"{FOREIGN}numactl --hardware")
    assert re.findall(r"node \d cpus: (.*)", shown) == nodes
    if len(nodes) > 1:
        assert [row.split() for row in re.findall(r"(?m)^ +\d: (.*)$", shown)] == [["10", "21"], ["21", "10"]]
    return told


def flatten(fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return lscpu's fields, which it nests from util-linux 2.38 on."""
    return [one for field in fields for one in (field, *flatten(field.get("children", [])))]
