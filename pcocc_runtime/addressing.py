"""What is inside a job's namespace, and where: devices, MACs and addresses, derived as the names in `naming` are."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from pcocc_runtime.naming import MAX_RANK, UPLINK_NETWORK, VXLAN_PORT_BASE

FIRST_HOST6 = MAX_RANK + 1  # of the VMs in their IPv6 prefix: one prefix has room for all of them
NODE_MAC_PREFIX = "02:70:63"
MAX_INTERFACE_NAME = 15  # IFNAMSIZ of linux/if.h, less the zero byte
MAX_PORT_PREFIX = MAX_INTERFACE_NAME - 8  # see bridged_port
MAX_BRIDGED_RANK = 0x3FFF  # 14 bits of the MAC address, see bridged_mac


def vm_mac(prefix: str, rank: int, network: int) -> str:
    """Return the MAC of a VM's interface: the site's three bytes, 6 bits of network, 18 bits of rank."""
    return _mac(prefix, (network << 18) | rank)


def node_mac(index: int, network: int) -> str:
    """Return the MAC of a network's tunnel on the job's `index`-th node; locally administered, never a VM's."""
    return _mac(NODE_MAC_PREFIX, (network << 18) | index)


def bridged_mac(job: int, rank: int, network: int) -> str:
    """Return the MAC of a VM on a segment that jobs share: locally administered, 26 bits job, 6 network, 14 rank."""
    bits = (job << 20) | (network << 14) | rank
    # bit 0 clear: one station; bit 1 set: not a manufacturer's (IEEE 802, 8.2)
    first = (bits >> 40) << 2 | 0b10
    return bytes([first, *(bits & 0xFFFFFFFFFF).to_bytes(5, "big")]).hex(":")


def gateway_mac(network: int) -> str:
    """Return the MAC of the gateway of a network: the same on every node, as its address is."""
    return _mac("02:70:67", network)


def _mac(prefix: str, low: int) -> str:
    tail = low.to_bytes(3, "big").hex(":")
    return f"{prefix}:{tail}"


def vm_address(network: IPv4Network, rank: int) -> IPv4Address:
    """Return the address of a VM: the network's first host address plus its rank."""
    return network.network_address + 1 + rank


def gateway_address(network: IPv4Network) -> IPv4Address:
    """Return the address of gateway, DHCP and DNS, the same on every node: the network's last host address."""
    return network.broadcast_address - 1


def node_address(network: IPv4Network, index: int) -> IPv4Address:
    """Return the address the job's `index`-th node itself uses in the network, just below the gateway's."""
    return network.broadcast_address - 2 - index


def cluster_network6(job: int, network: int) -> IPv6Network:
    """Return the IPv6 prefix of a job's network: unique local (RFC 4193), its last 32 bits from job id and index."""
    bits = 0xFD70_636F << 32 | job << 6 | network
    return IPv6Network((bits << 64, 64))


def vm_address6(network: IPv6Network, rank: int) -> IPv6Address:
    """Return the IPv6 address of a VM; blocks of ranks that are powers of two are prefixes."""
    return network.network_address + FIRST_HOST6 + rank


def gateway_address6(network: IPv6Network) -> IPv6Address:
    """Return the IPv6 address of the DNS server, the same on every node; routers have link-local ones."""
    return network.network_address + 1


def room_for(network: IPv4Network, vms: int, nodes: int) -> bool:
    """Tell whether the network has room for the VMs, the nodes and the gateway."""
    return vms + nodes + 3 <= network.num_addresses


def uplink_addresses(slot: int) -> tuple[IPv4Address, IPv4Address]:
    """Return the addresses of the host's and of the job's end of a veth pair: a /31 (RFC 3021)."""
    first = UPLINK_NETWORK.network_address + 2 * slot
    return first, first + 1


def shut_address(address: IPv4Address) -> IPv4Address:
    """Return a multicast address in place of an uplink's: no host takes a packet from it (RFC 1122, 3.2.1.3)."""
    return IPv4Address(int(address) & 0x0FFFFFFF | 0xE0000000)


def link_local_address(mac: str) -> IPv6Address:
    """Return the link-local address an interface derives from its MAC (RFC 4291, appendix A)."""
    raw = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
    return IPv6Address(b"\xfe\x80" + bytes(6) + interface)


def partition_guid(prefix: int, key: int, rank: int, port: int) -> int:
    """Return a GUID of a VM in an InfiniBand partition: 16 bits of the site's prefix, 16 of key, 24 of rank, 8 of port.

    Port 0 stands for the device itself: the GUIDs of a device and of its port must differ.
    """
    return prefix << 48 | key << 32 | rank << 8 | port


def host_guid(guid: int, function: int, port: int) -> int:
    """Return a GUID of a virtual function that is in the partitions of its node, made of that of its device.

    It is locally administered, and its middle 16 bits, the same in all GUIDs that are made of addresses of Ethernet,
    tell function and port.
    """
    return (guid | 1 << 57) ^ (function + 1) << 25 ^ port << 24


def vxlan_vni(job: int) -> int:
    """Return the VNI (24 bits) of every network of the job; see `vxlan_port` for what tells networks apart."""
    return job & 0xFFFFFF


def vxlan_port(job: int, network: int) -> int:
    """Return the UDP port of one network's tunnel: the network and the two bits of the job id the VNI lacks."""
    return VXLAN_PORT_BASE + (network << 2) + (job >> 24)


def bridge_name(network: int) -> str:
    """Return the name of a network's bridge inside the job's namespace."""
    return f"br{network}"


def vxlan_name(network: int) -> str:
    """Return the name of a network's tunnel device inside the job's namespace."""
    return f"vx{network}"


def inner_port_name(network: int) -> str:
    """Return the name, inside the job's namespace, of the device that leads to a bridge of the host."""
    return f"pt{network}"


def tap_name(rank: int, network: int) -> str:
    """Return the name of a VM's tap device inside the job's namespace (at most 15 characters)."""
    return f"tap{rank}n{network}"


def bridged_port(prefix: str, job: int, network: int) -> str:
    """Return the name, among the host's interfaces, of the job's port on a bridge of the host (at most 15 characters).

    The last eight are the job id in base 36, with leading zeros, and the network's index, so no two jobs share a name.
    """
    digits = ""
    for _place in range(6):
        job, digit = divmod(job, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return f"{prefix}{digits}{network:02d}"
