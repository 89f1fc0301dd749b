"""Networks as the site defines them: a class for each type of networks.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import ClassVar

TUNNEL_OVERHEAD = 50  # VXLAN over IPv4: RFC 7348, section 5
DEFAULT_NETWORK = IPv4Network("10.200.0.0/16")
DEFAULT_DOMAIN = "vcluster"


@dataclass(frozen=True, slots=True)
class ReverseNat:
    """A VM port made reachable on a host port of a range."""

    vm_port: int
    min_host_port: int
    max_host_port: int


@dataclass(frozen=True, slots=True)
class EthernetNetwork:
    """A private Ethernet network. `mtu` is that of the VMs' interfaces: the configured one minus the tunnel's overhead.

    `allow_outbound` is True for everywhere, False for nowhere, or the networks outside that VMs may reach.
    """

    type: ClassVar[str] = "ethernet"
    name: str
    layer: str = "L3"
    int_network: IPv4Network = DEFAULT_NETWORK
    mtu: int = 1500 - TUNNEL_OVERHEAD
    mac_prefix: str = "52:54:00"
    domain_name: str = DEFAULT_DOMAIN
    dns_server: IPv4Address | None = None
    dns_search: tuple[str, ...] = ()
    ntp_server: IPv4Address | None = None
    allow_outbound: bool | tuple[IPv4Network, ...] = True
    reverse_nat: tuple[ReverseNat, ...] = ()
    manage_ip_forward: bool = True


@dataclass(frozen=True, slots=True)
class Vlan:
    """A VLAN of a bridge's port. Untagged frames of VMs enter the `native` one; other types say how frames leave it."""

    vid: int
    type: str


@dataclass(frozen=True, slots=True)
class BridgedNetwork:
    """A bridge of the nodes to which VMs are attached. Without `vlans` a port has the bridge's own default.

    `addresses` are those that VMs may have there; when it is empty, they may have any.
    """

    type: ClassVar[str] = "bridged-ethernet"
    name: str
    host_bridge: str
    tap_prefix: str
    mtu: int = 1500
    vlans: tuple[Vlan, ...] = ()
    addresses: tuple[IPv4Network | IPv6Network, ...] = ()


@dataclass(frozen=True, slots=True)
class InfinibandNetwork:
    """Gives each cluster a partition of the fabric, for up to `max_vms` VMs; keys are without the full-member bit.

    Slurm has a licence for each key: its name is `license` followed by the key, such as pkey2001 for 0x2001.
    `guid_prefix` is the upper 16 bits of the VMs' GUIDs. `partitions_file` is the subnet manager's file: networks with
    the same file are on the same fabric. `gres` is Slurm's name for the functions of `host_device`, with or without a
    type.
    """

    type: ClassVar[str] = "infiniband"
    name: str
    host_device: str
    min_pkey: int
    max_pkey: int
    license: str = "pkey"
    guid_prefix: int = 0xC2CC
    max_vms: int = 256
    gres: str = "nic"
    partitions_file: str = "/etc/opensm/partitions.conf"

    @property
    def keys(self) -> range:
        """Return the pool of partition keys."""
        return range(self.min_pkey, self.max_pkey + 1)


@dataclass(frozen=True, slots=True)
class HostInfiniband:
    """Virtual functions of the node's InfiniBand device, in the node's own partitions; `gres` is as above."""

    type: ClassVar[str] = "host-infiniband"
    name: str
    host_device: str
    gres: str = "nic"


@dataclass(frozen=True, slots=True)
class SriovEthernet:
    """Virtual functions of the node's Ethernet interface `host_device`, in a VLAN of the site's, 0 for none.

    A VM may send `rate` Mbit/s, 0 for as much as it can; `mtu` is that of its interface; `gres` as above.
    """

    type: ClassVar[str] = "sriov-ethernet"
    name: str
    host_device: str
    gres: str = "nic"
    vlan: int = 0
    rate: int = 0
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class DevicePool:
    """PCI devices of nodes that Slurm gives out as a GRES: those with one of these `addresses` or `ids`.

    An id is vendor and device, as in `10de:20b2`. `host_driver` is the driver that the node itself uses for them.
    """

    gres: str
    addresses: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    host_driver: str | None = None


@dataclass(frozen=True, slots=True)
class GenericPci:
    """PCI devices of the node, of which each VM gets one; `gres` is Slurm's name for them, with or without a type."""

    type: ClassVar[str] = "genericpci"
    name: str
    host_device_addrs: tuple[str, ...]
    host_driver: str
    gres: str = "pci"

    @property
    def pool(self) -> DevicePool:
        """Return these devices in the form that the devices of pcocc.yaml have."""
        return DevicePool(self.gres, self.host_device_addrs, (), self.host_driver)


BuildableNetwork = EthernetNetwork | BridgedNetwork  # built of interfaces in the job's namespace
VirtualNetwork = InfinibandNetwork | HostInfiniband | SriovEthernet  # each VM on it gets a virtual function
FunctionNetwork = VirtualNetwork | GenericPci  # each VM on it gets a PCI function
Network = BuildableNetwork | FunctionNetwork
