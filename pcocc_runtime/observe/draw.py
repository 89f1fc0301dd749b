"""The networks of a job as a drawing in text, and as a tree for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pcocc_runtime import addressing, naming
from pcocc_runtime.documents.node import BridgedFacts, NetworkFacts, RoutedFacts
from pcocc_runtime.documents.node_answer import NetDevice, NodeAnswer
from pcocc_runtime.naming import UPLINK
from pcocc_runtime.tables import columns, count

_HEADS = ("", "DEVICE", "ADDRESS", "MAC", "RECEIVED", "SENT", "DROPPED", "REACHED BY")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def plan_picture(nodes: Sequence[NodeAnswer], silent: Sequence[str]) -> dict[str, Any]:
    """Return all that is known, as JSON shows it; counters are the VM's: it has received what its tap has sent."""
    first = nodes[0].node
    every = {network.name: network for one in nodes for network in one.node.networks}
    return {
        "job": first.job, "vms": first.vm_count,
        "networks": [
            _plan_network(first.job, one) for one in sorted(every.values(), key=lambda one: one.index)
        ],
        "nodes": [_plan_node(one) for one in nodes], "silent": list(silent),
    }


def _plan_network(job: int, one: NetworkFacts) -> dict[str, Any]:
    tree: dict[str, Any] = {"name": one.name, "kind": one.kind, "mtu": one.mtu, "vms": list(one.ranks)}
    if not isinstance(one, BridgedFacts):
        tree |= {"vni": addressing.vxlan_vni(job), "port": addressing.vxlan_port(job, one.index)}
    if isinstance(one, RoutedFacts):
        outbound = (
            one.outbound if isinstance(one.outbound, bool) else [str(allowed) for allowed in one.outbound]
        )
        tree |= {
            "addresses": str(one.addresses), "gateway": one.gateway, "domain": one.domain,
            "outbound": outbound,
        }
    return tree


def _plan_node(answer: NodeAnswer) -> dict[str, Any]:
    uplink = _plan_link(answer.links.get(UPLINK)) | {"device": UPLINK} if UPLINK in answer.links else None
    networks = [_plan_share(answer, one) for one in answer.node.networks]
    return {
        "name": answer.node.name, "networks": networks, "uplink": uplink, "functions": _plan_functions(answer),
    }  # fmt: skip


def _plan_functions(answer: NodeAnswer) -> list[dict[str, Any]]:
    """Return the PCI functions of a node's VMs, those of a network or a device together."""
    every = [(rank, one) for rank, functions in sorted(answer.node.functions.items()) for one in functions]
    states = {(one.rank, one.guid): "not known" if one.trouble else one.state or "no port" for one in answer.ports}
    return [
        {
            "network": one.source, "key": None if one.key is None else f"{one.key:#06x}",
            "vm": naming.vm_name(rank), "device": one.address, "guid": one.guid, "mac": one.mac,
            "port": states.get((rank, one.guid or "")),
        }
        for rank, one in sorted(every, key=lambda pair: pair[1].source)
    ]


def _plan_share(answer: NodeAnswer, network: NetworkFacts) -> dict[str, Any]:
    bridge, tunnel = addressing.bridge_name(network.index), addressing.vxlan_name(network.index)
    tree: dict[str, Any] = {
        "name": network.name,
        "bridge": {"device": bridge, **_plan_link(answer.links.get(bridge))},
        "vms": [_plan_vm(answer, network, rank) for rank in answer.node.ranks_on(network)],
    }
    if isinstance(network, RoutedFacts):
        tree["bridge"]["address"] = str(addressing.node_address(network.addresses, answer.node.index))
    if not isinstance(network, BridgedFacts):
        tree["tunnel"] = {"device": tunnel, **_plan_link(answer.links.get(tunnel))}
    return tree


def _plan_vm(answer: NodeAnswer, network: NetworkFacts, rank: int) -> dict[str, Any]:
    tap, node, routed = (
        addressing.tap_name(rank, network.index), answer.node, isinstance(network, RoutedFacts),
    )
    place, mac = next(
        (place, one.mac) for place, one in enumerate(node.interfaces[rank]) if one.network == network.index
    )
    state = _plan_link(answer.links.get(tap))
    state |= {"received": state["sent"], "sent": state["received"]}
    forwards = [
        {"vm_port": one.vm_port, "host_port": one.host_port}
        for one in node.forwards
        if one.rank == rank and routed
    ]
    return {
        "name": naming.vm_name(rank),
        "interface": f"eth{place}",
        "address": network.address_of(rank) if isinstance(network, RoutedFacts) else None,
        "mac": mac,
        "device": tap,
        **state,
        "forwards": forwards,
    }


def _plan_link(link: NetDevice | None) -> dict[str, Any]:
    if link is None:
        return {"state": "missing", "mtu": None, "received": None, "sent": None, "dropped": None}
    state = "up" if link.up else "down"
    return {
        "state": state, "mtu": link.mtu, "received": link.received, "sent": link.sent,
        "dropped": link.dropped,
    }


def render_picture(picture: dict[str, Any]) -> str:
    """Return the drawing: a line for each network, then a tree of each node's networks and VMs with their counters."""
    nodes = picture["nodes"]
    total = len(nodes) + len(picture["silent"])
    title = f"job {picture['job']}: {count(picture['vms'], 'VM')} on {count(total, 'node')}"
    networks = [f"{one['name']}: {', '.join(_describe(one))}" for one in picture["networks"]]
    rows: list[tuple[str, ...]] = [_HEADS]
    for node in nodes:
        rows += _node_rows(node)
    lines = [title, "", *networks, "", *_columns(rows)]
    if picture["silent"]:
        lines += ["", f"no answer from: {', '.join(picture['silent'])}"]
    return "\n".join(lines) + "\n"


def _describe(one: dict[str, Any]) -> list[str]:
    words = [one["kind"], f"MTU {one['mtu']}", count(len(one["vms"]), "VM")]
    if "vni" in one:
        words += [f"VNI {one['vni']}", f"UDP port {one['port']}"]
    if "addresses" in one:
        outbound = one["outbound"]
        reach = ("all" if outbound else "none") if isinstance(outbound, bool) else " ".join(outbound)
        words += [
            one["addresses"], f"gateway {one['gateway']}", f"domain {one['domain']}", f"outbound {reach}",
        ]
    return words


def _function_rows(node: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a line for each partition or device of a node, and what each VM has of it: GUID or MAC, port's state."""
    rows: list[tuple[str, ...]] = []
    for one in node["functions"]:
        head = (f"|- {one['network']}", f"key {one['key']}" if one["key"] else "")
        rows += [] if head in rows else [head]
        rows.append((f"|  |- {one['vm']}", one["device"], "", one["guid"] or one["mac"] or "", one["port"] or ""))
    return rows


def _node_rows(node: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [(node["name"],), *_function_rows(node)]
    branches = [*node["networks"], *([None] if node["uplink"] else [])]
    for place, share in enumerate(branches):
        corner, bar = ("`- ", "   ") if place == len(branches) - 1 else ("|- ", "|  ")
        if share is None:
            rows.append(_row(f"{corner}way out", node["uplink"]))
            continue
        rows.append(
            (
                f"{corner}{share['name']}", share["bridge"]["device"], share["bridge"].get("address", ""),
                "", *_state(share["bridge"]),
            )
        )
        leaves = [(f"{vm['name']} {vm['interface']}", vm) for vm in share["vms"]]
        leaves += [("to other nodes", share["tunnel"])] if "tunnel" in share else []
        for number, (label, leaf) in enumerate(leaves):
            rows.append(_row(f"{bar}{'`- ' if number == len(leaves) - 1 else '|- '}{label}", leaf))
    return rows


def _row(label: str, leaf: dict[str, Any]) -> tuple[str, ...]:
    counters = [leaf["state"]] * 3
    if leaf["state"] == "up":
        counters = [_amount(leaf["received"]), _amount(leaf["sent"]), str(leaf["dropped"])]
    ports = " ".join(f"{one['host_port']}>{one['vm_port']}" for one in leaf.get("forwards", ()))
    return (label, leaf["device"], leaf.get("address") or "", leaf.get("mac", ""), *counters, ports)


def _state(leaf: dict[str, Any]) -> tuple[str, ...]:
    return () if leaf["state"] == "up" else (leaf["state"],)


def _amount(number: int) -> str:
    """Return bytes as people read them, with three digits."""
    amount, unit = float(number), 0
    while amount >= 1000 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{number} B" if unit == 0 else f"{amount:.3g} {_UNITS[unit]}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    full = [[*row, *[""] * (len(_HEADS) - len(row))] for row in rows]
    return columns(full).splitlines()
