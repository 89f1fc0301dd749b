"""What is broken in a job's networks, and where, judged from what each of its nodes has found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from pcocc_runtime import addressing, naming
from pcocc_runtime.documents.node import BridgedFacts, NetworkFacts, NodeFacts, RoutedFacts
from pcocc_runtime.documents.node_answer import NodeAnswer, ReachReport
from pcocc_runtime.findings import FAILED, NOTE, WELL, Finding, failed, render_lines
from pcocc_runtime.networks.kinds import TUNNEL_OVERHEAD
from pcocc_runtime.observe.check_fabric import check_ports
from pcocc_runtime.tables import count

_MOST_NAMES = 5  # wrong names reported of one node
_OUTWARD = (
    "if other machines reach it, look at 'nft list ruleset' and 'sysctl net.ipv4.conf' on that node; if it"
    " answers no node at all, name another one with --outbound=HOST or HOST:PORT"
)


def evaluate(nodes: Sequence[NodeAnswer], silent: Sequence[str], target: str | None) -> list[Finding]:
    """Return what is right and what is not; `silent` nodes gave no answer, `target` is outside the cluster."""
    found = [
        Finding(
            FAILED, f"{name} does not answer",
            f"see whether it is up with 'sinfo -n {name}', and slurmd's log there",
        )
        for name in silent
    ]
    troubled = (one for one in nodes if one.trouble)
    found += [Finding(FAILED, f"{one.node.name}: its part could not be checked: {one.trouble}") for one in troubled]
    every = {network.name: network for one in nodes for network in one.node.networks}
    for network in sorted(every.values(), key=lambda one: one.index):
        found += _check_devices(network, nodes)
        asked = [
            (answer.node, one) for answer in nodes for one in answer.reports if one.network == network.index
        ]
        if isinstance(network, RoutedFacts) and asked:
            found += [
                *_check_reach(network, asked), *_check_names(network, asked),
                *_check_outbound(network, asked, target),
            ]
        elif not isinstance(network, RoutedFacts):
            found.append(
                Finding(
                    NOTE, f"{network.name}: pcocc gives no addresses on it, so only its devices were checked"
                )
            )
    return [*found, *check_ports(nodes), *_check_dhcp(nodes)]


def _check_devices(network: NetworkFacts, nodes: Sequence[NodeAnswer]) -> list[Finding]:
    wrong = [
        one
        for answer in nodes
        for share in answer.node.networks
        if share.name == network.name
        for one in _wrong_devices(answer, share)
    ]
    return wrong or [
        Finding(WELL, f"{network.name}: its devices are up on {_nodes(one.node.name for one in nodes)}")
    ]


def _wrong_devices(answer: NodeAnswer, network: NetworkFacts) -> Iterator[Finding]:
    node = answer.node
    names = [(addressing.bridge_name(network.index), "its bridge")]
    if not isinstance(network, BridgedFacts) and len(node.nodes) > 1:
        names.append((addressing.vxlan_name(network.index), "its tunnel"))
    names += [
        (addressing.tap_name(rank, network.index), naming.vm_name(rank)) for rank in node.ranks_on(network)
    ]
    for name, what in names:
        link = answer.links.get(name)
        if link is None:
            state = "is missing"
        elif not link.up:
            state = "is down"
        elif link.mtu != network.mtu:
            state = f"has MTU {link.mtu}, not {network.mtu}"
        else:
            continue
        yield Finding(
            FAILED, f"{network.name}: {name} ({what}) {state} on {node.name}",
            "slurmd's log there says how it was made"
        )


def _check_reach(network: RoutedFacts, asked: Sequence[tuple[NodeFacts, ReachReport]]) -> list[Finding]:
    homes = {rank: home.name for home in asked[0][0].nodes for rank in home.ranks}
    dead = _find_dead(asked)
    found = [
        Finding(
            FAILED,
            f"{network.name}: {naming.vm_name(rank)} on {homes[rank]} ({network.address_of(rank)}) answers"
            " none of the nodes",
            "has it booted, with this interface configured by DHCP? see its console: "
            f"{naming.job_dir(asked[0][0].job)}/{naming.vm_name(rank)}/console.log there",
        )
        for rank in sorted(dead)
    ]
    for node, one in asked:
        for home in dict.fromkeys(homes[rank] for rank in sorted((one.lost | one.narrow) - dead)):
            found += _check_path(
                network, node, one, home, {rank for rank in one.tried if homes[rank] == home} - dead
            )
    quiet = sorted(frozenset().union(*(one.silent for _node, one in asked)))
    if quiet:
        found.append(
            Finding(NOTE, f"{network.name}: {_vms(quiet)} answered ssh but no ping, so large packets were not tried")
        )
    return found or [_all_well(network, asked)]


def _find_dead(asked: Sequence[tuple[NodeFacts, ReachReport]]) -> set[int]:
    """Return the VMs that no node could reach in any way, of those that were tried."""
    tried = {rank for _node, one in asked for rank in one.tried}
    return {rank for rank in tried if all(rank in one.lost for _node, one in asked if rank in one.tried)}


def _check_path(
    network: RoutedFacts, node: NodeFacts, one: ReachReport, home: str, there: set[int]
) -> Iterator[Finding]:
    """Yield what is wrong on the path from one node to the VMs of another (or its own)."""
    lost, narrow = sorted(one.lost & there), sorted(one.narrow & there)
    outer = network.mtu + TUNNEL_OVERHEAD
    port = addressing.vxlan_port(node.job, network.index)
    if lost:
        whole = len(lost) == len(there)
        hint = (
            f"UDP port {port} must be open between {node.name} and {home}"
            if whole and home != node.name
            else None
        )
        yield Finding(
            FAILED, f"{network.name}: {node.name} does not reach {_vms(lost)} on {home}; other nodes do", hint
        )
    if narrow:
        far = (
            f"the network between {node.name} and {home} must pass {outer} bytes; lower 'mtu' in"
            " networks.yaml where it cannot"
        )
        near = f"the interface in the VM must have MTU {network.mtu}, which DHCP gives it"
        text = (
            f"{network.name}: packets of {network.mtu} bytes do not get from {node.name} to {_vms(narrow)} on"
            f" {home}; small ones do"
        )
        yield Finding(FAILED, text, near if home == node.name else far)


def _all_well(network: RoutedFacts, asked: Sequence[tuple[NodeFacts, ReachReport]]) -> Finding:
    tried = len({rank for _node, one in asked for rank in one.tried})
    most = max(len(one.tried) for _node, one in asked)
    part = f" ({most} asked from each)" if most < len(network.ranks) else ""
    names = _nodes(node.name for node, _one in asked)
    return Finding(
        WELL,
        f"{network.name}: {count(tried, 'VM')} answer from {names}{part}, packets of {network.mtu}"
        " bytes too",
    )


def _check_names(network: RoutedFacts, asked: Sequence[tuple[NodeFacts, ReachReport]]) -> list[Finding]:
    found = []
    for node, one in asked:
        if one.deaf:
            text = f"{network.name}: the DNS server at {network.gateway} does not answer on {node.name}"
            found.append(
                Finding(FAILED, text, "see in slurmd's log and with 'ps' whether dnsmasq runs there")
            )
        found += [
            Finding(FAILED, f"{network.name}: on {node.name}, {wrong}")
            for wrong in one.wrong_names[:_MOST_NAMES]
        ]
        if len(one.wrong_names) > _MOST_NAMES:
            found.append(
                Finding(
                    FAILED,
                    f"{network.name}: on {node.name}, {len(one.wrong_names) - _MOST_NAMES} more names are"
                    " wrong",
                )
            )
    names = _nodes(node.name for node, _one in asked)
    return found or [Finding(WELL, f"{network.name}: DNS knows VMs by name and by address on {names}")]


def _check_outbound(
    network: RoutedFacts, asked: Sequence[tuple[NodeFacts, ReachReport]], target: str | None
) -> list[Finding]:
    if not network.outbound:
        return [Finding(NOTE, f"{network.name}: allow-outbound is none, so nothing outside was tried")]
    if target is None:
        return [
            Finding(
                NOTE, f"{network.name}: pcocc knows no machine outside that it could try",
                "name one with --outbound=HOST or HOST:PORT",
            )
        ]
    tried = [(node, one.outbound) for node, one in asked if one.outbound is not None]
    if not tried:
        return [Finding(NOTE, f"{network.name}: {target} is not in allow-outbound, so it was not tried")]
    wrong = [
        Finding(FAILED, f"{network.name}: on {node.name}, {why}", _OUTWARD) for node, why in tried if why
    ]
    return wrong or [
        Finding(
            WELL, f"{network.name}: {target}, outside, answers {_nodes(node.name for node, _why in tried)}"
        )
    ]


def _check_dhcp(nodes: Sequence[NodeAnswer]) -> list[Finding]:
    hint = "see in slurmd's log why dnsmasq has ended there"
    bare = [one.node.name for one in nodes if one.dhcp is False]
    found = [Finding(FAILED, f"no DHCP server listens on {name}", hint) for name in bare]
    if not found and any(one.dhcp for one in nodes):
        text = (
            "a DHCP server listens on every node; only root could ask it, but VMs that answer have got their"
            " addresses from it"
        )
        found.append(Finding(NOTE, text))
    return found


def _nodes(names: Iterable[str]) -> str:
    every = list(dict.fromkeys(names))
    return every[0] if len(every) == 1 else count(len(every), "node")


def _vms(ranks: Sequence[int]) -> str:
    """Return VMs as Slurm writes a set of hosts, such as vm[0-3,7]."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    text = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return f"vm{text}" if len(ranks) == 1 else f"vm[{text}]"


def plan_findings(job: int, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings as JSON shows them."""
    return {"job": job, "ok": not failed(findings), "findings": [asdict(one) for one in findings]}


def render_findings(job: int, findings: Sequence[Finding]) -> str:
    """Return a line for each finding, with its hint below it, and a last one that sums up."""
    bad = failed(findings)
    lines = [*render_lines(findings), f"job {job}: {count(bad, 'failure') if bad else 'no failure'}"]
    return "\n".join(lines) + "\n"
