"""Files of the original pcocc (0.3 to 0.7) turned into files of this one, and what became of each of their keys.

Sources: the original's man pages of section 5, and what its code takes for each setting (EthNetwork.py,
DeprecatedNetworks.py, Templates.py, Hypervisor.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from pcocc_runtime.addressing import MAX_PORT_PREFIX
from pcocc_runtime.networks import old_types
from pcocc_runtime.networks.settings import find_table
from pcocc_runtime.settings.checks import is_name, is_template_name
from pcocc_runtime.settings.tree import Node
from pcocc_runtime.site.fates import (
    CHANGED,
    LEFT_OUT,
    REMARK,
    SAME,
    TO_DO,
    Fate,
    Rule,
    fate_of,
    plain,
    said,
    translate_mapping,
)
from pcocc_runtime.site.resource_sets import RESOURCE_SET
from pcocc_runtime.templates.settings import yaml_table

FILES = ("networks.yaml", "resources.yaml", "templates.yaml", "repos.yaml")
GONE = {
    "batch.yaml": "jobs are Slurm's own, and there is no etcd",
    "containers.yaml": "pcocc runs VMs only: run containers in a VM, or with Apptainer on the nodes",
}
_LEAST_MTU = 1330
FindDisk = Callable[[str], str | None]
"""Returns the newest disk in an image directory of the original, None where there is none."""


@dataclass(frozen=True, slots=True)
class Translation:
    """The files of today by their names, each as the value to be written, and the fate of each old key."""

    trees: dict[str, Any]
    fates: tuple[Fate, ...]


def plan_import(trees: Mapping[str, Node], find_disk: FindDisk) -> Translation:
    """Return what the original's files, by their names such as templates.d/a.yaml, are today."""
    found: dict[str, Any] = {}
    fates: list[Fate] = []
    names = {what: _find_names(trees, *place) for what, place in _NAMED.items()}
    for file, tree in trees.items():
        if file in GONE:
            fates += _tell_gone(tree, GONE[file])
        elif file == "networks.yaml":
            found[file] = _translate_networks(tree, names["network"], fates)
        elif file == "resources.yaml":
            found[file] = _translate_sets(tree, names, fates)
        elif file == "repos.yaml":
            found[file] = _translate_repos(tree, fates)
        else:
            found[file] = _translate_templates(tree, names, find_disk, fates)
    return Translation(found, tuple(fates))


_NAMED = {
    "network": (re.compile(r"networks\.yaml"), is_name),
    "resource set": (re.compile(r"resources\.yaml"), is_name),
    "template": (re.compile(r"templates\.yaml|templates\.d/.*"), is_template_name),
}


def _find_names(
    trees: Mapping[str, Node], file: re.Pattern[str], is_right: Callable[[str], bool]
) -> dict[str, str]:
    """Return the name that each thing has today: the original allowed any."""
    files = [tree.value for key, tree in trees.items() if file.fullmatch(key) and isinstance(tree.value, dict)]
    every = [name for one in files for name in one]
    names: dict[str, str] = {}
    for name in every:
        base = new = name if is_right(name) else re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("_.-")[:60] or "x"
        number = 1
        while new != name and (new in every or new in names.values()):
            number += 1
            new = f"{base}-{number}"
        names[name] = new
    return names


def _named(tree: Node, names: Mapping[str, str], fates: list[Fate]) -> list[tuple[str, Node]]:
    """Return the entries of a file by their names of today."""
    if not isinstance(tree.value, dict):
        fates.append(fate_of(tree, TO_DO, "is not a mapping of names"))
        return []
    renamed = [(name, node) for name, node in tree.value.items() if names[name] != name]
    why = "is called {} now: names have no other characters"
    fates += [fate_of(node, CHANGED, why.format(names[name])) for name, node in renamed]
    return [(names[name], node) for name, node in tree.value.items()]


def _tell_gone(tree: Node, why: str) -> list[Fate]:
    """Return the fates of the keys of a file that there is no longer; arguments for Slurm are to be given to it."""
    fates = []
    for key, node in tree.value.items() if isinstance(tree.value, dict) else ():
        children = node.value.values() if key == "settings" and isinstance(node.value, dict) else [node]
        for child in children:
            if child.path.endswith("batch-args"):
                words = " ".join(map(str, plain(child))) if isinstance(child.value, tuple) else child.raw
                fates.append(fate_of(child, TO_DO, f"users give these to sbatch, or job_submit.lua sets them: {words}"))
            else:
                fates.append(fate_of(child, LEFT_OUT, why))
    return fates


def _translate_networks(tree: Node, names: Mapping[str, str], fates: list[Fate]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, node in _named(tree, names, fates):
        items = node.value if isinstance(node.value, dict) else {}
        kind, settings = items.get("type"), items.get("settings")
        layer = settings.value.get("network-layer") if settings and isinstance(settings.value, dict) else None
        known = find_table(kind.raw, layer is not None and layer.raw == "L2") if kind else None
        if kind is None or known is None:
            fates.append(fate_of(kind or node, TO_DO, "is a network of no type that pcocc knows"))
            continue
        today, table = known
        fates.append(fate_of(kind, SAME) if today == kind.raw else fate_of(kind, CHANGED, f"now {today}"))
        found[name] = {"type": today}
        rules = _rules_of(kind.raw, today)
        values = translate_mapping(settings, table, rules, fates) if settings else {}
        if kind.raw == "pv":
            values["network-layer"] = "L2"
        if values:
            found[name]["settings"] = values
        if today == "ethernet" and values.get("network-layer") != "L2":
            fates += _missed(node, values)
    return found


def _missed(node: Node, values: Mapping[str, Any]) -> list[Fate]:
    """Return notes about settings that an L3 network does not have, and whose defaults are others today."""
    defaults = {
        "domain-name": "was pcocc.DOMAIN of the node without it, and is vcluster now",
        "dns-server": "without it, VMs could ask the DNS servers of the node; now they learn only each other's names",
    }
    return [fate_of(node.at(["settings", key]), REMARK, why) for key, why in defaults.items() if key not in values]


def _rules_of(kind: str, today: str) -> Mapping[str, Rule]:
    """Return how the settings of a network are translated."""
    if today == "bridged-ethernet":
        return {"tap-prefix": lambda node: {"tap-prefix": said(node.raw[:MAX_PORT_PREFIX], node)}}
    if today != "ethernet":
        return {}
    is_old = kind in old_types.TYPES
    return {key: _old_rule(kind, key) for key in old_types.keys_of(kind)} if is_old else _ETHERNET


def _old_rule(kind: str, key: str) -> Rule:
    def translate(node: Node) -> Mapping[str, Node] | str:
        new = old_types.translate_setting(kind, key, node)
        if not new:
            return "no longer needed"
        (name, one), *more = new.items()
        again = _ETHERNET[name](one) if name in _ETHERNET else new
        return again if isinstance(again, str) else {**again, **dict(more)}

    return translate


def _mtu(node: Node) -> Mapping[str, Node]:
    """Return the MTU; the original takes smaller ones than IPv6 needs in the VMs."""
    low = isinstance(node.value, int) and not isinstance(node.value, bool) and node.value < _LEAST_MTU
    return {"mtu": Node(_LEAST_MTU, node.file, node.line, node.path, str(_LEAST_MTU)) if low else node}


def _unless_empty(key: str) -> Rule:
    nothing = ("", None, "0.0.0.0")  # the last stands in the sample of its first release
    return lambda node: "is empty" if node.value in nothing else {key: node}


def _mac_prefix(node: Node) -> Mapping[str, Node]:
    """Return the first three bytes of a prefix, of which the original takes four, too."""
    return {"mac-prefix": said(node.raw.rpartition(":")[0], node) if node.raw.count(":") == 3 else node}


def _int_network(node: Node) -> Mapping[str, Node]:
    """Return the network; the original counts from an address in it, too."""
    try:
        return {"int-network": said(str(IPv4Network(node.raw, strict=False)), node)}
    except ValueError:
        return {"int-network": node}


def _domain_name(node: Node) -> Mapping[str, Node] | str:
    """Return the first of several domains as the name, and all as those that are searched."""
    if node.value in ("", None):
        return "is empty"
    first, comma, _ = node.raw.partition(",")
    return {"domain-name": said(first.strip(), node), "dns-search": node} if comma else {"domain-name": node}


_ETHERNET: dict[str, Rule] = {
    "mac-prefix": _mac_prefix, "int-network": _int_network, "domain-name": _domain_name, "mtu": _mtu,
    **{key: _unless_empty(key) for key in ("dns-search", "dns-server", "ntp-server")},
}  # fmt: skip


def _translate_sets(tree: Node, names: Mapping[str, Mapping[str, str]], fates: list[Fate]) -> dict[str, Any]:
    def networks(node: Node) -> Mapping[str, Node]:
        items = node.value if isinstance(node.value, tuple) else ()
        words = list(dict.fromkeys(names["network"].get(one.raw, one.raw) for one in items))
        new = tuple(said(word, one) for word, one in zip(words, items, strict=False))
        return {"networks": Node(new, node.file, node.line, node.path)}

    def default(node: Node) -> Mapping[str, Node]:
        return {"default": Node(bool(node.value), node.file, node.line, node.path, str(bool(node.value)).lower())}

    rules: dict[str, Rule] = {"networks": networks, "default": default}
    named = _named(tree, names["resource set"], fates)
    return {name: translate_mapping(node, RESOURCE_SET, rules, fates) for name, node in named}


def _translate_repos(tree: Node, fates: list[Fate]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, node in tree.value.items() if isinstance(tree.value, dict) else ():
        if key == "repos":
            found[key] = plain(node)
            fates.append(fate_of(node, SAME))
        else:
            why = "where the original keeps what it makes from container images" if key == "cache" else "has no effect"
            fates.append(fate_of(node, LEFT_OUT, why))
    return found


def _translate_templates(
    tree: Node, names: Mapping[str, Mapping[str, str]], find_disk: FindDisk, fates: list[Fate]
) -> dict[str, Any]:
    rules = _template_rules(names, find_disk)
    found: dict[str, Any] = {}
    for name, node in _named(tree, names["template"], fates):
        found[name] = values = translate_mapping(node, yaml_table(), rules, fates)
        if "machine-type" not in values and "inherits" not in values:
            why = "the machine is q35 now, where it was pc; a guest that needs the old one gets machine-type: pc"
            fates.append(fate_of(node, REMARK, why))
    return found


def _template_rules(names: Mapping[str, Mapping[str, str]], find_disk: FindDisk) -> Mapping[str, Rule]:
    def renamed(key: str, what: str) -> Rule:
        return lambda node: {key: said(names[what].get(node.raw, node.raw), node)}

    def image(node: Node) -> Mapping[str, Node] | str:
        if node.value in ("", None):
            return "is empty"
        disk = find_disk(node.raw) if "/" in node.raw else None
        return {"image": said(disk, node) if disk else node}

    def arguments(node: Node) -> Mapping[str, Node]:
        items: tuple[Node, ...] = node.value if isinstance(node.value, tuple) else ()
        new = tuple(said(one.raw, one) for one in items)
        return {"custom-args": Node(new, node.file, node.line, node.path) if new else node}

    def drives(node: Node) -> Mapping[str, Node]:
        items = node.value if isinstance(node.value, tuple) else None
        new = items and tuple(map(_nest_options, items))
        return {"persistent-drives": Node(new, node.file, node.line, node.path) if new else node}

    return {
        "inherits": renamed("inherits", "template"), "resource-set": renamed("resource-set", "resource set"),
        "image": image, "custom-args": arguments, "persistent-drives": drives,
        "placeholder": lambda _node: "the original sets it itself",
        **{key: _unless_empty(key) for key in ("kernel", "user-data", "instance-id", "qemu-bin", "remote-display")},
    }  # fmt: skip


def _nest_options(node: Node) -> Node:
    """Return a drive whose options stand beside its path, as in the original's own sample, with these below it."""
    items = node.value if isinstance(node.value, dict) else {}
    (path, first), *options = items.items() or [("", node)]
    if not options or first.value is not None:
        return node
    below = Node(dict(options), first.file, first.line, first.path)
    return Node({path: below}, node.file, node.line, node.path)
