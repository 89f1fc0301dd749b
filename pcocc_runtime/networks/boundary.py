"""A job's walls on a node: its tables in the host's namespace and in its own, and its veth pair between the two."""

from __future__ import annotations

from collections.abc import Iterable

from pcocc_runtime import naming
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks import nat, nft_inside, nft_outside
from pcocc_runtime.networks.plan import NetworkPlan
from pcocc_runtime.system import process, sysctl

_BRIDGE_HOOKS = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables")


def ensure_guard() -> None:
    """Put the standing guard of all tunnels into the host's namespace, or put it right."""
    _apply(nft_outside.render_guard(_narrow([])))


def ensure_outside(job: int, plans: tuple[NetworkPlan, ...], peers: Iterable[str], held: nat.Nat | None) -> None:
    """Make the job's table in the host's namespace; called before there is a tunnel to protect."""
    closed = _find_closed() if held else []
    if closed and not all(plan.spec.manage_ip_forward for plan in plans if nat.needs_uplink([plan])):
        raise NodeError(
            f"this node does not forward IPv4 packets that arrive on {', '.join(closed)}, and manage-ip-forward is false",
            hint="set net.ipv4.ip_forward=1 on the node, or manage-ip-forward: true in /etc/pcocc/networks.yaml",
        )
    _apply(nft_outside.render_guard(_narrow(closed)) + nft_outside.render_host(job, plans, peers, held))
    for name in closed:
        sysctl.write(f"ipv4/conf/{name}/forwarding", "1")


def ensure_uplink(job: int, plans: tuple[NetworkPlan, ...], held: nat.Nat) -> None:
    """Make the veth pair between the two namespaces, seen from the host's."""
    from pcocc_runtime.networks import netlink

    name, (here, _inside) = naming.uplink_name(job), naming.uplink_addresses(held.slot)
    netlink.ensure_veth(name, naming.netns_name(job), naming.UPLINK, max(plan.spec.mtu for plan in plans))
    sysctl.write(f"ipv6/conf/{name}/disable_ipv6", "1")
    sysctl.write(f"ipv4/conf/{name}/forwarding", "1")
    if held.forwards:
        sysctl.write(f"ipv4/conf/{name}/route_localnet", "1")  # 127.0.0.1:PORT of the node leads to a VM too
    netlink.ensure_address(name, str(here), 31)


def ensure_inside(plans: tuple[NetworkPlan, ...], held: nat.Nat | None) -> None:
    """Make the tables of the job's namespace, which the calling thread is in."""
    for name in _BRIDGE_HOOKS:  # bridged frames are the bridge table's alone
        sysctl.write(f"bridge/{name}", "0")
    _apply(nft_inside.render_firewall(plans, held))
    if held:
        from pcocc_runtime.networks import netlink

        here, inside = naming.uplink_addresses(held.slot)
        sysctl.write("ipv4/ip_forward", "1")
        sysctl.write(f"ipv6/conf/{naming.UPLINK}/disable_ipv6", "1")
        netlink.ensure_address(naming.UPLINK, str(inside), 31, gateway=str(here))


def _find_closed() -> list[str]:
    """Return the host's interfaces whose packets it would not forward: replies to VMs arrive on any that has a route."""
    if sysctl.read("ipv4/ip_forward") == "1":
        return []
    ours = naming.HOST_UPLINKS.rstrip("*")
    names = [name for name in sysctl.list_routing_interfaces() if not name.startswith(ours)]
    return [name for name in names if sysctl.read(f"ipv4/conf/{name}/forwarding") != "1"]


def _narrow(closed: list[str]) -> list[str] | None:
    return None if sysctl.read("ipv4/ip_forward") == "1" else closed


def _apply(text: str) -> None:
    process.run(["nft", "-f", "-"], text=text, hint="install the package nftables")
