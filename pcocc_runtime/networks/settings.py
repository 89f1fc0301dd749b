"""networks.yaml: the original pcocc's keys and ours, checked and turned into networks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from itertools import combinations
from typing import Any

from pcocc_runtime import addressing, naming
from pcocc_runtime.errors import ConfigError
from pcocc_runtime.networks import old_types
from pcocc_runtime.networks.infiniband import INFINIBAND, build_infiniband
from pcocc_runtime.networks.kinds import (
    TUNNEL_OVERHEAD,
    BridgedNetwork,
    EthernetNetwork,
    GenericPci,
    HostInfiniband,
    InfinibandNetwork,
    Network,
    ReverseNat,
    Vlan,
)
from pcocc_runtime.settings import checks
from pcocc_runtime.settings.checks import Problems, Setting
from pcocc_runtime.settings.tree import Node

_NEVER_INSIDE = (  # what no interface of a VM can have: RFC 6890, section 2.2.2
    (IPv4Network("0.0.0.0/8"), "'this network'"),
    (IPv4Network("127.0.0.0/8"), "loopback"),
    (IPv4Network("169.254.0.0/16"), "link-local, where 169.254.64.0/18 is pcocc's own on the nodes"),
    (IPv4Network("224.0.0.0/4"), "multicast"),
    (IPv4Network("240.0.0.0/4"), "reserved"),
)


def _cidr(node: Node) -> IPv4Network:
    text = checks.text(node)
    try:
        loose = IPv4Network(text, strict=False)
    except ValueError:
        raise checks.mismatch(node, "an IPv4 network such as 10.200.0.0/16") from None
    if loose.network_address != IPv4Address(text.partition("/")[0]):
        raise node.error(f"{text} is an address inside a network, not a network", f"write {loose}")
    return loose


def _int_network(node: Node) -> IPv4Network:
    network = _cidr(node)
    if not 8 <= network.prefixlen <= 29:
        raise node.error(f"{network} must have a prefix length between 8 and 29")
    for reserved, why in _NEVER_INSIDE:
        if network.overlaps(reserved):
            raise node.error(f"{network} overlaps {reserved}, which is {why}", "take a range such as 10.200.0.0/16")
    return network


def _outbound(node: Node) -> bool | tuple[IPv4Network, ...]:
    if isinstance(node.value, tuple):
        allowed: tuple[IPv4Network, ...] = checks.list_of(_cidr)(node)
        if not allowed:
            raise node.error("the list is empty", "write 'none' when VMs shall reach nothing outside")
        return allowed
    if node.raw not in ("all", "none"):
        raise checks.mismatch(node, "'all', 'none' or a list of IPv4 networks")
    return node.raw == "all"


def _encryption(node: Node) -> str:
    if node.raw != "none":
        raise checks.mismatch(node, "'none'", "pcocc cannot encrypt tunnels yet; until then no other value is taken")
    return node.raw


def _address(node: Node) -> IPv4Address:
    try:
        return IPv4Address(checks.text(node))
    except ValueError:
        raise checks.mismatch(node, "an IPv4 address such as 192.0.2.53") from None


def _mac_prefix(node: Node) -> str:
    prefix: str = checks.pattern(r"([0-9a-fA-F]{2}:){0,2}[0-9a-fA-F]{2}", "one to three bytes such as 52:54:00")(node)
    parts = [*prefix.lower().split(":"), "00", "00"][:3]
    if int(parts[0], 16) & 1:
        raise node.error(f"{prefix!r} begins multicast addresses, which no interface can have", "the first byte must be even")
    if ":".join(parts) in (addressing.NODE_MAC_PREFIX, addressing.gateway_mac(0)[:8]):
        raise node.error(f"{prefix!r} begins the addresses of the nodes themselves", "take another prefix, such as 52:54:00")
    return ":".join(parts)


def _domain(node: Node) -> str:
    name = checks.text(node).rstrip(".")
    if len(name) > 190 or not re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(\.(?!-)[A-Za-z0-9-]{1,63})*", name):
        raise node.error(f"{name!r} is not a domain name")
    return name


def _search(node: Node) -> tuple[str, ...]:
    if isinstance(node.value, tuple):
        domains: tuple[str, ...] = checks.list_of(_domain)(node)
        return domains
    return tuple(_domain(Node(word.strip(), node.file, node.line, node.path, word)) for word in checks.text(node).split(","))


def _interface(longest: int) -> checks.Check:
    """Return the check for (the beginning of) an interface's name: dev_valid_name() of the kernel, and narrower."""

    def check(node: Node) -> str:
        name: str = checks.pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "letters, digits, '_', '.' and '-'")(node)
        if len(name) > longest:
            rest = addressing.MAX_INTERFACE_NAME - longest
            why = f"an interface's name has at most {addressing.MAX_INTERFACE_NAME}" + (f", {rest} are pcocc's" if rest else "")
            raise node.error(f"{name!r} has {len(name)} characters, {longest} are possible: {why}")
        return name

    return check


def _tap_prefix(node: Node) -> str:
    prefix: str = _interface(addressing.MAX_PORT_PREFIX)(node)
    if prefix.startswith(naming.OWN_PREFIX):
        raise node.error(
            f"{prefix!r} begins like names of pcocc's own interfaces", f"take one that does not begin with {naming.OWN_PREFIX!r}"
        )
    return prefix


_PORT = checks.integer(1, 65535)
_REVERSE_NAT = (
    Setting("vm-port", _PORT, True),
    Setting("min-host-port", _PORT, True),
    Setting("max-host-port", _PORT, True),
)


def _rule(node: Node) -> ReverseNat:
    ports = checks.record(_REVERSE_NAT)(node)
    rule = ReverseNat(ports["vm-port"], ports["min-host-port"], ports["max-host-port"])
    if rule.min_host_port > rule.max_host_port:
        raise node.error(f"min-host-port {rule.min_host_port} is above max-host-port {rule.max_host_port}")
    return rule


def _rule_nodes(node: Node) -> tuple[Node, ...]:
    return node.value if isinstance(node.value, tuple) else (node,)


def _reverse_nat(node: Node) -> tuple[ReverseNat, ...]:
    rules: tuple[ReverseNat, ...] = checks.list_of(_rule)(Node(_rule_nodes(node), node.file, node.line, node.path))
    problems: Problems = []
    for index, item in enumerate(_rule_nodes(node)):
        if rules[index].vm_port in [rule.vm_port for rule in rules[:index]]:
            problems.append(item.error(f"vm-port {rules[index].vm_port} has a range already", "give it one range, large enough"))
    checks.raise_problems(problems)
    return rules


def _range(node: Node) -> IPv4Network | IPv6Network:
    text = checks.text(node)
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        loose = ip_network(text, strict=False)
    except ValueError:
        raise checks.mismatch(node, "a network or an address such as 192.0.2.128/25, 192.0.2.7 or 2001:db8::/64") from None
    raise node.error(f"{text} is an address inside a network, not a network", f"write {loose}")


def _addresses(node: Node) -> tuple[IPv4Network | IPv6Network, ...]:
    ranges: tuple[IPv4Network | IPv6Network, ...] = checks.list_of(_range)(node)
    if not ranges:
        raise node.error("the list is empty", "leave it out when VMs may have any address")
    return ranges


_VLAN = (
    Setting("vid", checks.integer(1, 4094), True),
    Setting("type", checks.choice("native", "tagged", "untagged"), True),
)


def _vlans(node: Node) -> tuple[Vlan, ...]:
    vlans = tuple(Vlan(**one) for one in checks.list_of(checks.record(_VLAN))(node))
    problems: Problems = []
    for index, (vlan, item) in enumerate(zip(vlans, node.value, strict=True)):
        if vlan.vid in [one.vid for one in vlans[:index]]:
            problems.append(item.error(f"VLAN {vlan.vid} is listed twice"))
        elif vlan.type == "native" and (first := next((one for one in vlans[:index] if one.type == "native"), None)):
            problems.append(item.error(f"VLAN {first.vid} is native already; only one can be", "make this one tagged"))
    checks.raise_problems(problems)
    return vlans


def _devices(node: Node) -> tuple[str, ...]:
    form = checks.pattern(r"([0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]", "a PCI address such as 0000:81:00.0")
    addresses: tuple[str, ...] = checks.list_of(form)(node)
    if not addresses:
        raise node.error("the list is empty", "name at least one device")
    twice = next((one for one in addresses if addresses.count(one) > 1), None)
    if twice:
        raise node.error(f"device {twice} is listed twice")
    return addresses


_WORD = checks.pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", "a word of letters, digits, '_', '.' and '-'")
_OWN_NAMESPACE = "no longer needed: each cluster has a network namespace of its own on a node"
_ETHERNET = (
    Setting("network-layer", checks.choice("L3", "L2")),
    Setting("dev-prefix", checks.pattern(r"[a-zA-Z][a-zA-Z_0-9]{0,7}", "a letter and up to 7 letters, digits or '_'"),
            note=f"{_OWN_NAMESPACE}, with devices called br0, vx0 and so on"),
    Setting("mtu", checks.integer(1280 + TUNNEL_OVERHEAD, 65535)),  # IPv6 wants 1280 in the VMs: RFC 8200, section 5
    Setting("mac-prefix", _mac_prefix),
    Setting("mac-start-offset", checks.integer(0, 2**24 - 1),
            note="no longer needed: addresses are made from network and VM, and no two clusters share a segment"),
    Setting("host-if-suffix", checks.pattern(r"[A-Za-z0-9.-]{0,63}", "letters, digits, '.' and '-'"),
            note="no longer needed: tunnels run between the addresses that the nodes' own names have"),
    Setting("int-network", _int_network),
    Setting("ext-network", _cidr, note=f"{_OWN_NAMESPACE}, and VMs need no second address"),
    Setting("dns-server", _address),
    Setting("domain-name", _domain),
    Setting("dns-search", _search),
    Setting("ntp-server", _address),
    Setting("allow-outbound", _outbound),
    Setting("reverse-nat", _reverse_nat),
    Setting("manage-ip-forward", checks.boolean),
    Setting("gateway", checks.choice("local-nat"), note="no longer needed: it names the only kind of gateway there is"),
    Setting("encryption", _encryption),
)  # fmt: skip
_L3_ONLY = frozenset((
    "int-network", "dns-server", "domain-name", "dns-search", "ntp-server", "allow-outbound", "reverse-nat", "manage-ip-forward",
))  # fmt: skip
_NOTED_L2 = tuple(
    replace(setting, note="without effect on an L2 network, which is given no addresses and has no way out")
    if setting.name in _L3_ONLY
    else setting
    for setting in _ETHERNET
)
_BRIDGED = (
    Setting("host-bridge", _interface(addressing.MAX_INTERFACE_NAME), True),
    Setting("tap-prefix", _tap_prefix, True),
    Setting("mtu", checks.integer(1280, 65535)),
    Setting("vlans", _vlans),
    Setting("addresses", _addresses),
)
_HOST_INFINIBAND = (Setting("host-device", _WORD, True),)
_PCI = (Setting("host-device-addrs", _devices, True), Setting("host-driver", _WORD, True))


def _ethernet(name: str, values: dict[str, Any], _node: Node) -> EthernetNetwork:
    without_effect = {"ext_network", "gateway", "dev_prefix", "mac_start_offset", "encryption"}
    kept = {key: value for key, value in values.items() if key not in without_effect}
    if "network_layer" in kept:
        kept["layer"] = kept.pop("network_layer")
    if "mtu" in kept:
        kept["mtu"] -= TUNNEL_OVERHEAD
    return EthernetNetwork(name, **kept)


Builder = Callable[[str, dict[str, Any], Node], Network]
_TYPES: dict[str, tuple[tuple[Setting, ...], Builder]] = {
    "ethernet": (_ETHERNET, _ethernet),
    "bridged-ethernet": (_BRIDGED, lambda name, values, _node: BridgedNetwork(name, **values)),
    "infiniband": (INFINIBAND, build_infiniband),
    "host-infiniband": (_HOST_INFINIBAND, lambda name, values, _node: HostInfiniband(name, **values)),
    "genericpci": (_PCI, lambda name, values, _node: GenericPci(name, **values)),
}
_ALIASES = {"eth": "ethernet", "bridged": "bridged-ethernet", "ib": "infiniband", "hostib": "host-infiniband"}
_OUTER = (Setting("type", checks.choice(*_TYPES, *_ALIASES, *old_types.TYPES), True), Setting("settings", lambda child: child))


def parse_networks(tree: Node, problems: Problems) -> dict[str, Network]:
    """Return the networks of networks.yaml by name, those that are right in themselves."""
    found: dict[str, Network] = {}
    for name, node in checks.read_names(tree, "network", problems).items():
        network = _parse_network(name, node, problems)
        if network:
            found[name] = network
    problems += _find_overlaps(tree, found)
    return found


def _parse_network(name: str, node: Node, problems: Problems) -> Network | None:
    values = checks.read_mapping(node, _OUTER, problems)
    if "type" not in values:
        return None
    kind, place = values["type"], values.get("settings")
    if place is None or place.value is None:
        place = Node({}, node.file, node.line, f"{node.path}.settings")
    if kind in old_types.TYPES:
        kind, place = "ethernet", old_types.translate_settings(kind, place)
    table, build = _TYPES[_ALIASES.get(kind, kind)]
    before = len(problems)
    settings = checks.read_mapping(place, table, problems)
    if len(problems) > before:
        return None
    try:
        return build(name, {key.replace("-", "_"): value for key, value in settings.items()}, place)
    except ConfigError as error:
        checks.add_problem(problems, error)
        return None


@dataclass(frozen=True, slots=True)
class _Range:
    """Numbers from `low` to `high` that a network takes of what `of` says."""

    of: str
    low: int
    high: int
    shown: str
    node: Node


def _find_overlaps(tree: Node, networks: Mapping[str, Network]) -> list[ConfigError]:
    """Return an error for each two ranges, of one network or of two, from which the same number could be taken."""
    ranges = [one for network in networks.values() for one in _ranges(network, tree.value[network.name])]
    pairs = {
        (first.node.path, second.node.path): (first, second)
        for first, second in reversed([*combinations(ranges, 2)])  # of what two places take from one range, the first counts
        if first.of == second.of and first.low <= second.high and second.low <= first.high
    }
    return [
        second.node.error(f"{second.shown} overlap {first.shown} of {first.node.path} (line {first.node.line})",
                          f"two networks cannot take {second.of} from one range")
        for first, second in reversed(pairs.values())
    ]  # fmt: skip


def _ranges(network: Network, node: Node) -> Iterator[_Range]:
    settings = (_part(node, "settings") or node).value
    if isinstance(network, InfinibandNetwork):
        shown = f"partition keys {network.min_pkey:#06x} to {network.max_pkey:#06x}"
        for of in (f"partition keys of {network.partitions_file}", f"GUIDs {network.guid_prefix:#06x}", f"licences {network.license}"):
            yield _Range(of, network.min_pkey, network.max_pkey, shown, settings["min-pkey"])
    if isinstance(network, EthernetNetwork) and network.layer == "L3" and network.reverse_nat:
        for rule, place in zip(network.reverse_nat, _rule_nodes(settings["reverse-nat"]), strict=True):
            shown = f"host ports {rule.min_host_port} to {rule.max_host_port}"
            yield _Range("host ports", rule.min_host_port, rule.max_host_port, shown, place)


def find_network_notes(tree: Node) -> list[str]:
    """Return a sentence with its place for each setting of networks.yaml that is accepted and has no effect."""
    notes: list[str] = []
    for node in tree.value.values() if isinstance(tree.value, dict) else ():
        kind = _part(node, "type")
        settings = _part(node, "settings")
        if kind and kind.raw in old_types.TYPES:
            notes += old_types.find_old_notes(kind, settings)
        elif kind and settings and (name := _ALIASES.get(kind.raw, kind.raw)) in _TYPES:
            layer = _part(settings, "network-layer")
            is_l2 = name == "ethernet" and layer and layer.raw == "L2"
            notes += checks.find_setting_notes(settings, _NOTED_L2 if is_l2 else _TYPES[name][0])
    return notes


def _part(node: Node, key: str) -> Node | None:
    return node.value.get(key) if isinstance(node.value, dict) else None
