"""networks.yaml: the original pcocc's keys and ours, checked and turned into networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from pcocc_runtime import addressing
from pcocc_runtime.errors import ConfigError
from pcocc_runtime.networks import old_types
from pcocc_runtime.networks import values as valid
from pcocc_runtime.networks.infiniband import INFINIBAND, build_infiniband
from pcocc_runtime.networks.kinds import (
    TUNNEL_OVERHEAD,
    BridgedNetwork,
    EthernetNetwork,
    GenericPci,
    HostInfiniband,
    InfinibandNetwork,
    Network,
    SriovEthernet,
)
from pcocc_runtime.settings import checks
from pcocc_runtime.settings.checks import Problems, Setting
from pcocc_runtime.settings.devices import gres
from pcocc_runtime.settings.tree import Node

_OWN_NAMESPACE = "no longer needed: each cluster has a network namespace of its own on a node"
_ETHERNET = (
    Setting("network-layer", checks.choice("L3", "L2")),
    Setting("dev-prefix", checks.pattern(r"[a-zA-Z][a-zA-Z_0-9]{0,7}", "a letter and up to 7 letters, digits or '_'"),
            note=f"{_OWN_NAMESPACE}, with devices called br0, vx0 and so on"),
    # IPv6 wants 1280 in the VMs: RFC 8200, section 5
    Setting("mtu", checks.integer(1280 + TUNNEL_OVERHEAD, 65535)),
    Setting("mac-prefix", valid.mac_prefix),
    Setting("mac-start-offset", checks.integer(0, 2**24 - 1),
            note="no longer needed: addresses are made from network and VM, and no two clusters share a segment"),
    Setting("host-if-suffix", checks.pattern(r"[A-Za-z0-9._-]{0,63}", "letters, digits, '.', '_' and '-'"),
            note="no longer needed: tunnels run between the addresses that the nodes' own names have"),
    Setting("int-network", valid.int_network),
    Setting("ext-network", checks.text, note=f"{_OWN_NAMESPACE}, and VMs need no second address"),
    Setting("dns-server", valid.address),
    Setting("domain-name", valid.domain),
    Setting("dns-search", valid.search),
    Setting("ntp-server", valid.address),
    Setting("allow-outbound", valid.outbound),
    Setting("reverse-nat", valid.reverse_nat),
    Setting("manage-ip-forward", checks.boolean),
    Setting("gateway", checks.choice("local-nat"), note="no longer needed: it names the only kind of gateway there is"),
    Setting("encryption", valid.encryption),
)  # fmt: skip
_L3_ONLY = frozenset((
    "int-network", "dns-server", "domain-name", "dns-search", "ntp-server", "allow-outbound", "reverse-nat",
    "manage-ip-forward",
))  # fmt: skip
_NOTED_L2 = tuple(
    replace(setting, note="without effect on an L2 network, which is given no addresses and has no way out")
    if setting.name in _L3_ONLY
    else setting
    for setting in _ETHERNET
)
_BRIDGED = (
    Setting("host-bridge", valid.interface(addressing.MAX_INTERFACE_NAME), True),
    Setting("tap-prefix", valid.tap_prefix, True), Setting("mtu", checks.integer(1280, 65535)),
    Setting("vlans", valid.vlans), Setting("addresses", valid.addresses),
)
_HOST_INFINIBAND = (Setting("host-device", valid.word, True), Setting("gres", gres))
_SRIOV = (
    Setting("host-device", valid.interface(addressing.MAX_INTERFACE_NAME), True), Setting("gres", gres),
    Setting("vlan", checks.integer(1, 4094)), Setting("rate", checks.integer(1, 1_000_000)),
    Setting("mtu", checks.integer(1280, 65535)),
)
_PCI = (
    Setting("host-device-addrs", valid.devices, True), Setting("host-driver", valid.word, True), Setting("gres", gres),
)


def _ethernet(name: str, values: dict[str, Any], _node: Node) -> EthernetNetwork:
    without_effect = {
        "ext_network", "gateway", "dev_prefix", "mac_start_offset", "encryption", "host_if_suffix",
    }  # fmt: skip
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
    "sriov-ethernet": (_SRIOV, lambda name, values, _node: SriovEthernet(name, **values)),
    "genericpci": (_PCI, lambda name, values, _node: GenericPci(name, **values)),
}
_ALIASES = {"eth": "ethernet", "bridged": "bridged-ethernet", "ib": "infiniband", "hostib": "host-infiniband"}
_OUTER = (
    Setting("type", checks.choice(*_TYPES, *_ALIASES, *old_types.TYPES), True),
    Setting("settings", lambda child: child),
)


def find_table(kind: str, is_l2: bool = False) -> tuple[str, tuple[Setting, ...]] | None:
    """Return a type's name today and the settings that a network of it can have; None for one that nobody knows."""
    name = "ethernet" if kind in old_types.TYPES else _ALIASES.get(kind, kind)
    if name not in _TYPES:
        return None
    return name, _NOTED_L2 if name == "ethernet" and is_l2 else _TYPES[name][0]


def parse_networks(tree: Node, problems: Problems) -> dict[str, Network]:
    """Return the networks of networks.yaml by name, without those whose own settings are wrong."""
    found: dict[str, Network] = {}
    for name, node in checks.read_named(tree, "network", problems).items():
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
    """Numbers from `low` to `high` that a network takes; `of` says of what kind they are."""

    of: str
    low: int
    high: int
    shown: str
    node: Node


def _find_overlaps(tree: Node, networks: Mapping[str, Network]) -> list[ConfigError]:
    """Return an error for each two ranges, of one network or of two, that have numbers in common."""
    ranges = [one for network in networks.values() for one in _ranges(network, tree.value[network.name])]
    pairs = {
        (first.node.path, second.node.path): (first, second)
        # where two places are in conflict for several reasons, the first reason counts
        for first, second in reversed([*combinations(ranges, 2)])
        if first.of == second.of and first.low <= second.high and second.low <= first.high
    }
    return [
        second.node.error(f"{second.shown} overlap {first.shown} of {first.node.path} (line {first.node.line})",
                          f"two ranges cannot share {second.of}")
        for first, second in reversed(pairs.values())
    ]  # fmt: skip


def _ranges(network: Network, node: Node) -> Iterator[_Range]:
    settings = (_part(node, "settings") or node).value
    if isinstance(network, InfinibandNetwork):
        shown = f"partition keys {network.min_pkey:#06x} to {network.max_pkey:#06x}"
        for of in (
            f"partition keys of {network.partitions_file}",
            f"GUIDs {network.guid_prefix:#06x}",
            f"licences {network.license}",
        ):
            yield _Range(of, network.min_pkey, network.max_pkey, shown, settings["min-pkey"])
    if isinstance(network, EthernetNetwork) and network.layer == "L3" and network.reverse_nat:
        for rule, place in zip(network.reverse_nat, valid.rule_nodes(settings["reverse-nat"]), strict=True):
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
        elif kind and settings:
            layer = _part(settings, "network-layer")
            found = find_table(kind.raw, layer is not None and layer.raw == "L2")
            notes += checks.find_setting_notes(settings, found[1]) if found else []
    return notes


def _part(node: Node, key: str) -> Node | None:
    return node.value.get(key) if isinstance(node.value, dict) else None
