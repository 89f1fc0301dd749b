"""The site's networks and resource sets: networks.yaml and resources.yaml, with the original pcocc's keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from pcocc_runtime import schema
from pcocc_runtime.errors import ConfigError
from pcocc_runtime.schema import Problems, Setting
from pcocc_runtime.yamlfile import Node

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
    """A private Ethernet network; `mtu` is that of the VMs' interfaces, the file's less the tunnel's overhead."""

    name: str
    layer: str = "L3"
    int_network: IPv4Network = DEFAULT_NETWORK
    mtu: int = 1500 - TUNNEL_OVERHEAD
    mac_prefix: str = "52:54:00"
    mac_start_offset: int = 0
    dev_prefix: str = ""
    host_if_suffix: str = ""
    domain_name: str = DEFAULT_DOMAIN
    dns_server: IPv4Address | None = None
    dns_search: tuple[str, ...] = ()
    ntp_server: str | None = None
    allow_outbound: bool | tuple[IPv4Network, ...] = True
    reverse_nat: tuple[ReverseNat, ...] = ()
    manage_ip_forward: bool = True


@dataclass(frozen=True, slots=True)
class OtherNetwork:
    """A network of a type that is checked but cannot be used yet."""

    name: str
    type: str
    settings: Mapping[str, Any]


Network = EthernetNetwork | OtherNetwork
ACCESS_KEYS = ("users", "groups", "accounts", "partitions", "qos")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use a thing; an empty list allows everybody."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    qos: tuple[str, ...] = ()


ANYBODY = Access()


@dataclass(frozen=True, slots=True)
class ResourceSet:
    """What a VM gets beside CPUs and memory: networks in interface order."""

    name: str
    networks: tuple[str, ...]
    default: bool = False
    access: Access = ANYBODY


def _cidr(node: Node) -> IPv4Network:
    try:
        network = IPv4Network(schema.text(node), strict=False)
    except ValueError:
        raise schema.mismatch(node, "an IPv4 network such as 10.200.0.0/16") from None
    if not 8 <= network.prefixlen <= 29:
        raise node.error(f"{network} must have a prefix length between 8 and 29")
    return network


def _outbound(node: Node) -> bool | tuple[IPv4Network, ...]:
    if isinstance(node.value, tuple):
        return tuple(_destination(item) for item in node.value)
    return bool(schema.choice("all", "none")(node) == "all")


def _destination(node: Node) -> IPv4Network:
    try:
        return IPv4Network(schema.text(node))
    except ValueError:
        raise schema.mismatch(node, "an IPv4 network such as 192.0.2.0/24") from None


def _address(node: Node) -> IPv4Address:
    try:
        return IPv4Address(schema.text(node))
    except ValueError:
        raise schema.mismatch(node, "an IPv4 address such as 192.0.2.53") from None


def _mac_prefix(node: Node) -> str:
    prefix: str = schema.pattern(r"([0-9a-fA-F]{2}:){0,2}[0-9a-fA-F]{2}", "one to three bytes such as 52:54:00")(node)
    parts = [*prefix.lower().split(":"), "00", "00"][:3]
    if int(parts[0], 16) & 1:
        raise node.error(f"{prefix!r} begins multicast addresses, which no interface can have",
                         "the first byte must be even")
    return ":".join(parts)


def _domain(node: Node) -> str:
    name = schema.text(node).rstrip(".")
    if len(name) > 190 or not re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(\.(?!-)[A-Za-z0-9-]{1,63})*", name):
        raise node.error(f"{name!r} is not a domain name")
    return name


def _search(node: Node) -> tuple[str, ...]:
    return tuple(
        _domain(Node(word.strip(), node.file, node.line, node.path, word)) for word in schema.text(node).split(",")
    )


_REVERSE_NAT = (
    Setting("vm-port", schema.integer(1, 65535), True),
    Setting("min-host-port", schema.integer(1, 65535), True),
    Setting("max-host-port", schema.integer(1, 65535), True),
)


def _reverse_nat(node: Node) -> tuple[ReverseNat, ...]:
    if isinstance(node.value, tuple):
        return tuple(rule for item in node.value for rule in _reverse_nat(item))
    ports = schema.record(_REVERSE_NAT)(node)
    rule = ReverseNat(ports["vm-port"], ports["min-host-port"], ports["max-host-port"])
    if rule.min_host_port > rule.max_host_port:
        raise node.error(f"min-host-port {rule.min_host_port} is above max-host-port {rule.max_host_port}")
    return (rule,)


_MTU = Setting("mtu", schema.integer(1280, 65535))
_ETHERNET = (
    Setting("network-layer", schema.choice("L3", "L2")),
    Setting("dev-prefix", schema.pattern(r"[a-zA-Z][a-zA-Z_0-9]{0,7}", "a letter and up to 7 letters, digits or '_'")),
    _MTU,
    Setting("mac-prefix", _mac_prefix),
    Setting("mac-start-offset", schema.integer(0, 2**24 - 1)),
    Setting("host-if-suffix", schema.pattern(r"[A-Za-z0-9.-]{0,63}", "letters, digits, '.' and '-'")),
    Setting("int-network", _cidr),
    Setting("ext-network", _cidr),  # the original's second address range: no longer needed
    Setting("dns-server", _address),
    Setting("domain-name", _domain),
    Setting("dns-search", _search),
    Setting("ntp-server", schema.text),
    Setting("allow-outbound", _outbound),
    Setting("reverse-nat", _reverse_nat),
    Setting("manage-ip-forward", schema.boolean),
    Setting("gateway", schema.choice("local-nat")),
)
_VLAN = (
    Setting("vid", schema.integer(1, 4094), True),
    Setting("type", schema.choice("native", "tagged", "untagged"), True),
)
_PKEY = schema.pattern(r"0x[0-9a-fA-F]{4}", "a partition key such as 0x2000")
_INFINIBAND = (
    Setting("host-device", schema.text, True),
    Setting("min-pkey", _PKEY, True),
    Setting("max-pkey", _PKEY, True),
    Setting("license", schema.text),
    Setting("opensm-daemon", schema.text, True),
    Setting("opensm-partition-cfg", schema.absolute_path, True),
    Setting("opensm-partition-tpl", schema.absolute_path, True),
)
_BRIDGED = (
    Setting("host-bridge", schema.text, True),
    Setting("tap-prefix", schema.text, True),
    _MTU,
    Setting("vlans", schema.list_of(schema.record(_VLAN))),
)
_PCI = (Setting("host-device-addrs", schema.list_of(schema.text), True), Setting("host-driver", schema.text, True))
_TYPES = {
    "ethernet": _ETHERNET,
    "bridged-ethernet": _BRIDGED,
    "infiniband": _INFINIBAND,
    "host-infiniband": (Setting("host-device", schema.text, True),),
    "genericpci": _PCI,
}
_ALIASES = {"eth": "ethernet", "bridged": "bridged-ethernet", "ib": "infiniband", "hostib": "host-infiniband"}


def parse_networks(tree: Node, problems: Problems) -> dict[str, Network]:
    """Return the networks of networks.yaml by name."""
    found: dict[str, Network] = {}
    for name, node in schema.read_names(tree, "network", problems).items():
        network = _parse_network(name, node, problems)
        if network:
            found[name] = network
    return found


def _parse_network(name: str, node: Node, problems: Problems) -> Network | None:
    outer = (
        Setting("type", schema.choice(*_TYPES, *_ALIASES), True),
        Setting("settings", lambda child: child),
    )
    values = schema.read_mapping(node, outer, problems)
    if "type" not in values:
        return None
    kind = _ALIASES.get(values["type"], values["type"])
    empty = Node({}, node.file, node.line, f"{node.path}.settings")
    before = len(problems)
    settings = schema.read_mapping(values.get("settings", empty), _TYPES[kind], problems)
    if len(problems) > before:
        return None
    return _ethernet(name, settings) if kind == "ethernet" else OtherNetwork(name, kind, settings)


def _ethernet(name: str, settings: Mapping[str, Any]) -> EthernetNetwork:
    renamed = {"network-layer": "layer"}
    special = {"ext-network", "gateway", "mtu"}
    values = {renamed.get(key, key).replace("-", "_"): value for key, value in settings.items() if key not in special}
    if "mtu" in settings:
        values["mtu"] = settings["mtu"] - TUNNEL_OVERHEAD
    values.setdefault("dev_prefix", name)
    return EthernetNetwork(name=name, **values)


_NAMES = schema.list_of(schema.text)
_RESOURCE_SET = (
    Setting("networks", _NAMES),
    Setting("default", schema.boolean),
    Setting("users", _NAMES),
    Setting("groups", _NAMES),
    Setting("accounts", _NAMES),
    Setting("partitions", _NAMES),
    Setting("qos", _NAMES),
)
_NESTED_SET = (*_RESOURCE_SET, Setting("resources", schema.record((Setting("networks", _NAMES),))))


def parse_resources(tree: Node, networks: Mapping[str, Network], problems: Problems) -> dict[str, ResourceSet]:
    """Return the resource sets of resources.yaml by name; each network they list must exist, one may be default."""
    found: dict[str, ResourceSet] = {}
    for name, node in schema.read_names(tree, "resource set", problems).items():
        values = schema.read_mapping(node, _NESTED_SET, problems)
        names = values.get("networks", values.get("resources", {}).get("networks", ()))
        problems += _wrong_networks(node, names, networks)
        access = Access(**{key: values[key] for key in ACCESS_KEYS if key in values})
        found[name] = ResourceSet(name, names, values.get("default", False), access)
    defaults = [name for name, one in found.items() if one.default]
    if len(defaults) > 1:
        problems.append(tree.value[defaults[1]].error(f"{defaults[0]!r} is the default already; only one can be"))
    return found


def _wrong_networks(node: Node, names: tuple[str, ...], networks: Mapping[str, Network]) -> list[ConfigError]:
    known = f"networks.yaml has: {', '.join(sorted(networks)) or 'none'}"
    wrong = [node.error(f"there is no network {name!r}", known) for name in names if name not in networks]
    repeated = sorted({name for name in names if names.count(name) > 1})
    return wrong + [node.error(f"network {name!r} is listed twice") for name in repeated]


def find_obstacle(one: ResourceSet, networks: Mapping[str, Network]) -> str | None:
    """Return why VMs cannot have this resource set yet, as the end of a sentence; None when they can."""
    if one.access.groups:
        return "it is restricted to groups, which is not supported yet"
    for name in one.networks:
        network = networks.get(name)
        if not isinstance(network, EthernetNetwork):
            kind = f"of type {network.type}" if network else "unknown"
            return f"network {name!r} is {kind}, which is not supported yet"
        if network.layer != "L3":
            return f"network {name!r} has network-layer {network.layer}, which is not supported yet"
    return None
