"""The address a VM is reached at. Imports little, as every VM step reads it (ipaddress alone takes 5 ms)."""

from __future__ import annotations

from collections.abc import Sequence

PORTFILE = "/etc/pcocc/host-ports"  # in a guest: `JOB PORTS`, see `render_ports`


def address_of(networks: Sequence[tuple[str, Sequence[tuple[int, int]]]], rank: int) -> str | None:
    """Return a VM's address in the first of the networks (`IPv4 prefix, [[first, last rank], ...]`) that it is in.

    They are those of `netplan.describe_reach`, the address that of `naming.vm_address`; None when the VM is
    in none of them.
    """
    for network, members in networks:
        if any(first <= rank <= last for first, last in members):
            base = int.from_bytes(bytes(map(int, network.partition("/")[0].split("."))), "big")
            return ".".join(map(str, (base + 1 + rank).to_bytes(4, "big")))
    return None


def render_ports(forwards: Sequence[tuple[int, int, int]], rank: int, node: str) -> str:
    """Return by which ports of its node a VM is reached, such as `22=n1:60222,80=n1:60300`.

    `forwards` are (rank, port of the VM, port of the node), those of VMs of this node alone.
    """
    return ",".join(f"{vm_port}={node}:{host_port}" for one, vm_port, host_port in forwards if one == rank)
