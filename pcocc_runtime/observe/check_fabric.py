"""What is wrong with the InfiniBand ports of a job's VMs, judged from what their guests and nodes have said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pcocc_runtime import naming
from pcocc_runtime.documents.node_answer import NodeAnswer, PortReport
from pcocc_runtime.findings import FAILED, NOTE, WELL, Finding
from pcocc_runtime.guest.ports import ACTIVE

_FULL = 0x8000  # the bit of full members


def check_ports(nodes: Iterable[NodeAnswer]) -> list[Finding]:
    """Return what is right and what is not of each network on a fabric."""
    every = [(answer.node.name, port) for answer in nodes for port in answer.ports]
    found: list[Finding] = []
    for name in dict.fromkeys(port.source for _node, port in every):
        own = [(node, port) for node, port in every if port.source == name]
        wrong = [one for node, port in own for one in _judge(node, port)]
        well = f"{name}: the ports of {len(own)} VMs are active{_with_key(own[0][1])}"
        found += wrong or [Finding(WELL, well.replace("ports of 1 VMs are", "port of 1 VM is"))]
    return found


def _with_key(port: PortReport) -> str:
    return "" if port.key is None else f", with the cluster's key {port.key:#06x}"


def _judge(node: str, port: PortReport) -> Iterator[Finding]:
    vm = f"{port.source}: {naming.vm_name(port.rank)} on {node}"
    if port.trouble:
        yield Finding(NOTE, f"{vm} was not asked about its port: {port.trouble}")
    elif port.state is None:
        yield Finding(
            FAILED, f"{vm} has no port with the GUID {port.guid}",
            "has its image the driver of the function? see 'lspci -k' and /sys/class/infiniband there",
        )
    elif port.state != ACTIVE and port.uplink == ACTIVE:
        yield Finding(
            FAILED,
            f"{vm}: its port is not active ({port.state}), but the node's own is: no SM with virtualization",
            "virtual ports need 'virt_enabled 2' in the opensm.conf of NVIDIA's opensm, or UFM",
        )
    elif port.state != ACTIVE:
        own = f"and neither is the node's own ({port.uplink})" if port.uplink else "and the node's own is not known"
        yield Finding(
            FAILED, f"{vm}: its port is not active ({port.state}), {own}",
            "is a subnet manager up? see 'sminfo' on the node",
        )
    elif port.key is not None and port.key | _FULL not in port.keys:
        keys = " ".join(f"{key:#06x}" for key in port.keys) or "none"
        yield Finding(
            FAILED,
            f"{vm}: its port has the keys {keys}, not {port.key:#06x}: GUID {port.guid} not in the SM's file",
            "install what 'pcocc config partitions' prints, and see 'pcocc config partitions --check FILE'",
        )
    elif port.key is not None and port.keys[0] != port.key | _FULL:
        yield Finding(NOTE, f"{vm}: the key {port.key:#06x} is not the first of its port, which most MPI libraries use")
