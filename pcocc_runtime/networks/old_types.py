"""The types `nat` and `pv` of pcocc's first releases, deprecated since, read as networks of type ethernet."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network

from pcocc_runtime.settings.tree import Node

# each setting's name today, None for one that is no longer needed (pcocc 0.7, DeprecatedNetworks.py)
_NAT: dict[str, str | None] = {
    "vm-network": "int-network", "mtu": "mtu", "domain-name": "domain-name", "dns-server": "dns-server",
    "ntp-server": "ntp-server", "reverse-nat": "reverse-nat", "allow-outbound": "allow-outbound",
    "nat-network": None, "vm-network-gw": None, "vm-ip": None, "vm-hwaddr": None, "bridge": None,
    "bridge-hwaddr": None, "tap-prefix": None,
}  # fmt: skip
_PV: dict[str, str | None] = {
    "mac-prefix": "mac-prefix", "mtu": "mtu", "bridge-prefix": None, "tap-prefix": None,
    "host-if-suffix": None,
}
_TABLES: Mapping[str, dict[str, str | None]] = {"nat": _NAT, "pv": _PV}
TYPES = tuple(_TABLES)
_MEANT = {
    "nat": (
        "type nat of the first releases is read as type ethernet: VMs have addresses of their own in"
        " vm-network, and reach each other"
    ),
    "pv": "type pv of the first releases is read as type ethernet with network-layer: L2",
}
_LONGEST_PREFIX = 29  # of int-network: a VM of type nat needed one address only


def translate_settings(kind: str, node: Node) -> Node:
    """Return the settings of type ethernet for a network of an old type; an unknown key stays, to be refused later."""
    if not isinstance(node.value, dict):
        return node
    found: dict[str, Node] = {}
    for key, child in node.value.items():
        found.update(translate_setting(kind, key, child))
    if kind == "pv":
        found["network-layer"] = Node("L2", node.file, node.line, node.path, "L2")
    return Node(found, node.file, node.line, node.path)


def keys_of(kind: str) -> tuple[str, ...]:
    """Return the settings that a network of an old type can have."""
    return tuple(_TABLES[kind])


def translate_setting(kind: str, key: str, node: Node) -> dict[str, Node]:
    """Return a setting of an old type as one or more settings of type ethernet, or none."""
    name = _TABLES[kind].get(key, key)
    return {} if name is None or node.value == "" else _translate(name, node)  # empty text stood for none


def _translate(name: str, node: Node) -> dict[str, Node]:
    """Return a setting as one or more settings of today, or none; a wrong value stays as it is, to be refused."""

    def said(text: str) -> Node:
        return Node(text, node.file, node.line, node.path, text)

    if name == "int-network" and isinstance(node.value, str):
        try:
            network = IPv4Network(node.value, strict=False)
        except ValueError:
            return {name: node}
        return {name: said(str(network))} if network.prefixlen <= _LONGEST_PREFIX else {}
    if name == "mac-prefix" and node.raw.count(":") == 3:  # four bytes, where pcocc now takes three
        return {name: said(node.raw.rpartition(":")[0])}
    if name == "domain-name" and isinstance(node.value, str) and "," in node.value:
        return {name: said(node.value.partition(",")[0].strip()), "dns-search": node}
    return {name: node}


def find_old_notes(kind: Node, settings: Node | None) -> list[str]:
    """Return what an old type is read as, and a sentence for each setting that has no effect."""
    found = settings.value.items() if settings and isinstance(settings.value, dict) else ()
    dropped = [
        child.error("no longer needed") for key, child in found if _TABLES[kind.raw].get(key, key) is None
    ]
    return [str(kind.error(_MEANT[kind.raw])), *map(str, dropped)]
