"""The site's resource sets: resources.yaml, what a VM gets beside CPUs and memory, and who may have it."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from pcocc_runtime import naming
from pcocc_runtime.errors import ConfigError
from pcocc_runtime.networks.kinds import EthernetNetwork, Network
from pcocc_runtime.settings import checks
from pcocc_runtime.settings.checks import Problems, Setting
from pcocc_runtime.settings.devices import gres_counts
from pcocc_runtime.settings.tree import Node

ACCESS_KEYS = ("users", "groups", "accounts", "partitions", "qos")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use a thing: whoever is in every list that is not empty."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    qos: tuple[str, ...] = ()


ANYBODY = Access()


@dataclass(frozen=True, slots=True)
class ResourceSet:
    """What a VM gets beside CPUs and memory: networks in interface order, and how many devices of each GRES."""

    name: str
    networks: tuple[str, ...]
    default: bool = False
    access: Access = ANYBODY
    devices: tuple[tuple[str, int], ...] = ()


def members(node: Node) -> tuple[str, ...]:
    """Check for a list that says who may use a thing."""
    names: tuple[str, ...] = checks.list_of(checks.text)(node)
    if not names:
        raise node.error("the list is empty", "name somebody, or leave the key out to admit everybody")
    return names


def network_names(node: Node) -> tuple[str, ...]:
    """Check for a list of networks; null counts as an empty list, as in pcocc 0.7."""
    names: tuple[str, ...] = () if node.value is None else checks.list_of(checks.text)(node)
    return names


_NETWORKS = Setting("networks", network_names)
RESOURCE_SET = (
    _NETWORKS,
    Setting("devices", gres_counts),
    Setting("default", checks.boolean),
    Setting("users", members),
    Setting("groups", members),
    Setting("accounts", members),
    Setting("partitions", members),
    Setting("qos", members),
    Setting("resources", checks.record((_NETWORKS,))),
)


def parse_resources(
    tree: Node, networks: Mapping[str, Network], problems: Problems, broken: Container[str] | None = (),
    pools: Collection[str] | None = (),
) -> dict[str, ResourceSet]:
    """Return the resource sets of resources.yaml by name; their networks must exist, one set may be the default.

    Networks in `broken` exist with a wrong definition, and are not reported as missing; with None, none is.
    `pools` are the devices of pcocc.yaml, None where these are wrong themselves.
    """
    found: dict[str, ResourceSet] = {}
    for name, node in checks.read_named(tree, "resource set", problems).items():
        if node.value is None:
            node = Node({}, node.file, node.line, node.path)
        values = checks.read_mapping(node, RESOURCE_SET, problems)
        names = values.get("networks", values.get("resources", {}).get("networks", ()))
        if names:
            problems += _check_networks(_networks_node(node), names, networks, broken)
        problems += _check_devices(node, values.get("devices", ()), pools)
        access = Access(**{key: values[key] for key in ACCESS_KEYS if key in values})
        found[name] = ResourceSet(name, names, values.get("default", False), access, values.get("devices", ()))
    defaults = [name for name, one in found.items() if one.default]
    for name in defaults[1:]:
        place = tree.value[name].value["default"]
        problems.append(place.error(f"{defaults[0]!r} is the default already, and there can be only one"))
    return found


def _networks_node(node: Node) -> Node:
    at: Node = (node if "networks" in node.value else node.value["resources"]).value["networks"]
    return at


def _check_networks(
    node: Node, names: tuple[str, ...], networks: Mapping[str, Network], broken: Container[str] | None
) -> Iterable[ConfigError]:
    if len(names) > naming.MAX_NETWORKS:
        yield node.error(f"{len(names)} networks are listed, but a VM can have {naming.MAX_NETWORKS} at most")
    known = f"networks.yaml has: {', '.join(sorted(networks)) or 'none'}"
    for index, (name, item) in enumerate(zip(names, node.value, strict=True)):
        if name in names[:index]:
            yield item.error(f"network {name!r} is listed twice")
        elif name not in networks and broken is not None and name not in broken:
            yield item.error(f"there is no network {name!r}", known)
        elif pair := find_overlap((*names[:index], name), networks, name):
            yield item.error(render_overlap(pair), "give one of the two another int-network in networks.yaml")


def _check_devices(
    node: Node, devices: Iterable[tuple[str, int]], pools: Collection[str] | None
) -> Iterable[ConfigError]:
    for place, (name, _count) in enumerate(devices):
        if pools is not None and name not in pools:
            at = node.value["devices"].value[name if isinstance(node.value["devices"].value, dict) else place]
            yield at.error(*no_device(name, pools))


def no_device(name: str, pools: Collection[str]) -> tuple[str, str]:
    """Return the sentence, and what to do, for a device that pcocc.yaml does not have."""
    known = ", ".join(sorted(pools)) or "none"
    return f"there is no device {name!r}", f"devices in pcocc.yaml: {known}"


def find_overlap(
    names: Iterable[str], networks: Mapping[str, Network], one: str | None = None
) -> tuple[EthernetNetwork, EthernetNetwork] | None:
    """Return the first two of these networks that have addresses in common; with `one`, the second must be it."""
    found = (networks.get(name) for name in dict.fromkeys(names))
    routed = [each for each in found if isinstance(each, EthernetNetwork) and each.layer == "L3"]
    pairs = ((a, b) for a, b in combinations(routed, 2) if a.int_network.overlaps(b.int_network))
    return next((pair for pair in pairs if one is None or one == pair[1].name), None)


def render_overlap(pair: tuple[EthernetNetwork, EthernetNetwork]) -> str:
    """Return the sentence for two networks that cannot be in one virtual cluster."""
    first, second = pair
    return (
        f"network {second.name!r} ({second.int_network}) overlaps {first.name!r} ({first.int_network}), "
        "so no virtual cluster can have both"
    )
