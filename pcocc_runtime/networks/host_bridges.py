"""Networks on bridges of the host: what is there, what is wrong with it, and text for ip(8) and bridge(8).

For each job and network, a pair of devices joins the host's bridge to the one in the job's namespace. VMs' own
devices stay in the namespace, and the port on the host's bridge goes when the namespace does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.kinds import BridgedNetwork
from pcocc_runtime.networks.plan import Bridged, NetworkPlan


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge of the host; when it filters VLANs, it puts a new port into VLAN `default_vid`, 0 for none."""

    mtu: int
    filters_vlans: bool
    default_vid: int


def parse_bridges(text: str) -> dict[str, Bridge]:
    """Return the bridges in the output of `ip -json -details link show type bridge`, by name."""
    found = {}
    for link in json.loads(text or "[]"):
        data = link.get("linkinfo", {}).get("info_data", {})
        if link:
            found[link["ifname"]] = Bridge(
                link["mtu"], bool(data.get("vlan_filtering")), data.get("vlan_default_pvid", 1)
            )
    return found


def ensure_fit(plans: Iterable[NetworkPlan], bridges: Mapping[str, Bridge], node: str) -> None:
    """Raise NodeError unless each bridge that the plans are attached to is there and can do what they ask."""
    for plan in plans:
        if isinstance(plan, Bridged):
            _ensure_fit(plan.spec, bridges.get(plan.spec.host_bridge), node)


def _ensure_fit(network: BridgedNetwork, bridge: Bridge | None, node: str) -> None:
    name = network.host_bridge
    if bridge is None:
        raise NodeError(
            f"{node} has no bridge {name!r}, which network {network.name!r} is on",
            hint="ask the admins to make it there, or to correct host-bridge in /etc/pcocc/networks.yaml",
        )
    if network.vlans and not bridge.filters_vlans:
        raise NodeError(
            f"bridge {name!r} of {node} does not filter VLANs, and network {network.name!r} has vlans",
            hint=(
                f"ask the admins for 'ip link set {name} type bridge vlan_filtering 1' there, or to remove"
                " vlans"
            ),
        )
    if network.mtu > bridge.mtu:
        raise NodeError(
            f"network {network.name!r} has MTU {network.mtu}, but bridge {name!r} of {node} only {bridge.mtu}",
            hint="ask the admins to lower mtu in /etc/pcocc/networks.yaml, or to raise the bridge's",
        )


def render_bridge_port(plan: Bridged, netns: str, bridge: Bridge) -> tuple[str, str]:
    """Return the ip(8) lines that make the pair of devices, still down.

    The pair gets the bridge's MTU: otherwise the bridge would take the pair's.
    """
    return (
        (
            f"link add {plan.host_port} mtu {bridge.mtu} type veth peer name {plan.wire} mtu {bridge.mtu}"
            f" netns {netns}"
        ),
        f"link set {plan.host_port} master {plan.spec.host_bridge}",
    )


def render_vlans(plan: Bridged, bridge: Bridge) -> str:
    """Return the bridge(8) batch that puts a port into its network's VLANs and no other; "" for no VLANs."""
    vlans, port = plan.spec.vlans, plan.host_port
    if not vlans:
        return ""
    flags = {"native": " pvid untagged", "untagged": " untagged", "tagged": ""}
    lines = [f"vlan del dev {port} vid {bridge.default_vid}"] if bridge.default_vid else []
    return (
        "\n".join([*lines, *(f"vlan add dev {port} vid {vlan.vid}{flags[vlan.type]}" for vlan in vlans)])
        + "\n"
    )
