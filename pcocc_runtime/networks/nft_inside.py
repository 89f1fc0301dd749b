"""nft text for a job's namespace on a node: what VMs may send to each other, to the node, and out.

The bridge table judges frames as they enter from a tap; sets are keyed by tap, so a packet costs the same
with one VM or a thousand. The inet table judges what the node itself receives and forwards. A VM's link-local
address must be the one derived from its MAC (RFC 4291, appendix A).
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network, collapse_addresses

from pcocc_runtime import addressing, naming
from pcocc_runtime.documents.work import Nat
from pcocc_runtime.networks.dnsmasq import find_server
from pcocc_runtime.networks.nft_text import render_chain, render_set, render_table
from pcocc_runtime.networks.plan import Bridged, NetworkPlan, Routed, RoutedTap, Tap

_ENTRY = -300  # NF_BR_PRI_NAT_DST_BRIDGED, linux/netfilter_bridge.h: before the bridge's own hooks

_CHAINS = """ chain from_vm {
  ether type vmap { arp : goto from_vm_arp, ip : goto from_vm_ip, ip6 : goto from_vm_ip6 }
  drop
 }
 chain from_vm_arp {
  arp htype != 1 drop
  arp ptype != ip drop
  arp hlen != 6 drop
  arp plen != 4 drop
  iifname . ether saddr != @macs drop
  arp operation { request, reply } iifname . arp saddr ether . arp saddr ip @sources accept
  arp operation request arp saddr ip 0.0.0.0 iifname . arp saddr ether . arp daddr ip @sources accept
  drop
 }
 chain from_vm_ip {
  udp sport 67 drop
  udp dport 68 drop
  iifname . ether saddr . ip saddr @sources accept
  ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 iifname . ether saddr @macs accept
  drop
 }
 chain from_vm_ip6 {
  frag nexthdr { 0, 43, 44, 51, 60, 135 } drop
  udp sport 547 drop
  udp dport 546 drop
  icmpv6 type nd-neighbor-advert iifname . @th,64,128 @targets6 iifname . ether saddr . ip6 saddr @sources6 accept
  icmpv6 type { nd-router-advert, nd-redirect, nd-neighbor-advert } drop
  iifname . ether saddr . ip6 saddr @sources6 accept
  iifname . ether saddr != @macs drop
  ip6 saddr :: icmpv6 type nd-neighbor-solicit iifname . @th,64,128 @targets6 accept
  ip6 saddr :: icmpv6 type { nd-router-solicit, mld-listener-report, mld2-listener-report } accept
  drop
 }
 chain to_site {
  ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 drop
  iifname . ether saddr != @macs drop
  meta protocol arp iifname . arp saddr ether != @macs drop
 }
"""
# Frames for 01:80:c2:00:00:0x are handed to the port they came by, past prerouting (br_handle_frame in the
# kernel).
_RESERVED = "ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 drop"


def render_firewall(job: int, plans: tuple[NetworkPlan, ...], nat: Nat | None) -> str:
    """Return nft text that replaces both tables of the job's namespace; `nat` is None when nothing may leave it."""
    return render_table("bridge", "pcocc", _render_bridge(plans)) + render_table(
        "inet", "pcocc", _render_inet(job, plans, nat)
    )


def _render_bridge(plans: tuple[NetworkPlan, ...]) -> str:
    """Return the table for frames: L3 networks' are checked, L2 ones' pass except to and from the node."""
    routed = _routed(plans)
    flat = [plan for plan in plans if not isinstance(plan, Routed)]
    taps = [tap for plan in routed for tap in plan.taps]
    segment = [name for plan in flat for name in (plan.wire, *(tap.name for tap in plan.taps))]
    bridged = [plan for plan in flat if isinstance(plan, Bridged)]
    site = [tap for plan in bridged for tap in plan.taps]
    ports = [f'"{tap.name}" : goto from_vm' for tap in taps] + [
        f'"{name}" : accept' for name in segment if name not in {tap.name for tap in site}
    ]
    ports += [f'"{tap.name}" : goto to_site{plan.index}' for plan in bridged for tap in plan.taps]
    parts = [
        render_set("map", "ports", "type ifname : verdict", ports),
        *_render_addresses(taps, site),
        render_set("set", "flat", "type ifname", [f'"{name}"' for name in segment]), _CHAINS,
        *(
            f" chain to_site{plan.index} {{\n{''.join(f'  {rule}{chr(10)}' for rule in _to_site(plan))} }}\n"
            for plan in bridged
        ),
        render_chain(
            "prerouting", f"type filter hook prerouting priority {_ENTRY}; policy accept",
            ["iifname vmap @ports", "drop"],
        ),
    ]
    hooks = {"input": [_RESERVED]}
    if segment:  # only then: each rule costs an L3 network 1 % of a round trip between two nodes
        hooks = {"input": [_RESERVED, "iifname @flat drop"], "output": ["oifname @flat drop"]}
    parts += [
        render_chain(hook, f"type filter hook {hook} priority 0; policy accept", rules)
        for hook, rules in hooks.items()
    ]
    return "".join(parts)


def _render_addresses(routed: list[RoutedTap], site: list[Tap]) -> list[str]:
    """Return the sets of the MACs and addresses that frames from these taps may have."""
    known: list[Tap | RoutedTap] = [*routed, *site]
    both = [(tap, address) for tap in known for address in _addresses6(tap)]
    four, six = "ifname . ether_addr . ipv4_addr", "ifname . ether_addr . ipv6_addr"
    return [
        render_set("set", "macs", "type ifname . ether_addr", [f'"{tap.name}" . {tap.mac}' for tap in known]),
        render_set("set", "sources", f"type {four}", [f'"{tap.name}" . {tap.mac} . {tap.address}' for tap in routed]),
        render_set("set", "sources6", f"type {six}", [f'"{tap.name}" . {tap.mac} . {one}' for tap, one in both]),
        render_set(
            "set", "targets6", "typeof iifname . @th,64,128", [f'"{tap.name}" . {int(one):#x}' for tap, one in both],
        ),
    ]


def _to_site(plan: Bridged) -> list[str]:
    """Return rules for frames to a bridge of the site: only from the VM's own MAC, never to the switches themselves.

    Where the site names addresses, only from these. In a tagged frame, `meta protocol` is the protocol behind the
    tag; a second tag there could hide any packet, and is dropped.
    """
    if not plan.spec.addresses:
        return ["jump to_site", "accept"]
    four = ", ".join(str(one) for one in plan.spec.addresses if one.version == 4)
    six = [one for one in plan.spec.addresses if isinstance(one, IPv6Network)]
    listed = f"{{ 0.0.0.0, {four} }}" if four else "{ 0.0.0.0 }"
    heads = [(one.prefixlen, int(one.network_address) >> 128 - one.prefixlen) for one in six]
    targets = [f"@th,64,{length} {head:#x} accept" if length else "accept" for length, head in heads]
    return [
        "jump to_site", "meta protocol { 8021q, 8021ad } drop",
        f"meta protocol arp arp saddr ip != {listed} drop",
        f"meta protocol arp arp saddr ip 0.0.0.0 arp daddr ip != {listed} drop",
        f"meta protocol ip ip saddr != {listed} drop", "meta protocol != ip6 accept",
        "meta protocol ip6 frag nexthdr { 0, 43, 44, 51, 60, 135 } drop",
        "meta protocol ip6 icmpv6 type { nd-router-advert, nd-redirect } drop",
        (
            f"meta protocol ip6 ip6 saddr != {{ {', '.join(['::', *map(str, six)])} }} iifname . ether saddr"
            " . ip6 saddr != @sources6 drop"
        ),
        "meta protocol ip6 meta l4proto != ipv6-icmp accept",
        "meta protocol ip6 icmpv6 type != { nd-neighbor-advert, nd-neighbor-solicit } accept",
        "meta protocol ip6 icmpv6 type nd-neighbor-solicit ip6 saddr != :: accept",
        "iifname . @th,64,128 @targets6 accept", *targets, "drop",
    ]


def _render_inet(job: int, plans: tuple[NetworkPlan, ...], nat: Nat | None) -> str:
    routed = _routed(plans)
    services = [rule for plan in routed for rule in _services(plan)]
    chains = [
        render_chain(
            "untracked", "type filter hook prerouting priority raw; policy accept", _untracked(routed)
        ),
        render_chain(
            "input", "type filter hook input priority filter; policy drop",
            ['iifname "lo" accept', "ct state established,related accept", *services],
        ),
        render_chain(
            "forward", "type filter hook forward priority filter; policy drop", _forwarded(plans, nat)
        ),
    ]
    if nat:
        chains += [
            render_chain(
                "output", "type filter hook output priority filter; policy accept", _sent(job, routed)
            )
        ]
        chains += _render_translation(plans, nat)
    return "".join(chains)


def _sent(job: int, routed: list[Routed]) -> list[str]:
    """Return rules for dnsmasq, which listens to VMs: it may send only questions to the site's servers out."""
    out = f'oifname "{naming.UPLINK}" meta skuid {naming.dnsmasq_uid(job)}'
    servers = dict.fromkeys(str(server) for plan in routed if (server := find_server(plan)))
    return [
        *(f"{out} ip daddr {server} meta l4proto {{ tcp, udp }} th dport 53 accept" for server in servers),
        f"{out} drop",
    ]


def _services(plan: Routed) -> list[str]:
    """Return what a VM may ask of its node: DHCP, DNS, ping and neighbour discovery, at the gateway's address."""
    here = f'iifname "{plan.bridge}"'
    rules = [
        f"{here} ip daddr {{ {plan.gateway}, 255.255.255.255 }} udp dport 67 accept",
        f"{here} ip daddr {plan.gateway} meta l4proto {{ tcp, udp }} th dport 53 accept",
        f"{here} ip daddr {plan.gateway} icmp type echo-request accept",
        (
            f'iifname {{ "{plan.bridge}", "{plan.wire}" }} icmpv6 type {{ nd-neighbor-solicit,'
            " nd-neighbor-advert } accept"
        ),
        f"{here} icmpv6 type nd-router-solicit accept", f"{here} ip6 daddr ff02::1:2 udp dport 547 accept",
    ]
    if plan.gateway6:
        rules += [
            f"{here} ip6 daddr {plan.gateway6} meta l4proto {{ tcp, udp }} th dport 53 accept",
            f"{here} ip6 daddr {plan.gateway6} icmpv6 type echo-request accept",
        ]
    return rules


def _untracked(routed: list[Routed]) -> list[str]:
    """Return rules that keep packets between VMs out of connection tracking: they are routed, never judged by state."""
    rules = []
    for plan in routed:
        net, own = plan.spec.int_network, (plan.gateway, plan.node_address)
        rules.append(f"ip saddr {net} ip daddr {net} ip daddr != {own[0]} ip daddr != {own[1]} notrack")
        if plan.network6:
            rules.append(
                f"ip6 saddr {plan.network6} ip6 daddr {plan.network6} ip6 daddr != {plan.gateway6} notrack"
            )
    return rules


def _forwarded(plans: tuple[NetworkPlan, ...], nat: Nat | None) -> list[str]:
    routed = _routed(plans)
    ways = [(plan.bridge, plan.wire) for plan in routed]
    rules = [
        f'iifname "{one}" oifname "{other}" accept' for pair in ways for one, other in (pair, pair[::-1])
    ]
    # IPv6 on one node, and br_netfilter
    rules += [f'iifname "{plan.bridge}" oifname "{plan.bridge}" accept' for plan in plans]
    if not nat:
        return rules
    rules += ["ct state established,related accept", f'iifname "{naming.UPLINK}" ct status dnat accept']
    rules.append(f'oifname "{naming.UPLINK}" ip daddr 169.254.0.0/16 reject with icmpx type admin-prohibited')
    for plan in routed:
        if plan.spec.allow_outbound:
            rules.append(
                f'iifname "{plan.bridge}" oifname "{naming.UPLINK}"'
                f" {_allowed(plan.spec.allow_outbound)}accept"
            )
    rules.append(f'oifname "{naming.UPLINK}" reject with icmpx type admin-prohibited')
    return rules


def _allowed(outbound: bool | tuple[IPv4Network, ...]) -> str:
    if isinstance(outbound, bool):
        return "meta nfproto ipv4 "
    return f"ip daddr {{ {', '.join(str(one) for one in collapse_addresses(outbound))} }} "


def _render_translation(plans: tuple[NetworkPlan, ...], nat: Nat) -> list[str]:
    """Return the chains that hide VMs behind the uplink's address and let the forwarded ports in.

    A source port below 1024 is never kept: to an NFS server it would mean the node's root.
    """
    addresses = {(plan.index, tap.rank): tap.address for plan in _routed(plans) for tap in plan.taps}
    targets = [
        f"{one.host_port} : {addresses[one.network, one.rank]} . {one.vm_port}" for one in nat.forwards
    ]
    # only a connection's first packet: others may be left over from the job that had this slot before
    first = "tcp flags & (fin | syn | rst | ack) == syn"
    inward = []
    if targets:
        inward = [f'iifname "{naming.UPLINK}" {first} dnat ip to tcp dport map {{ {", ".join(targets)} }}']
    _host, own = addressing.uplink_addresses(nat.slot)
    # see nft_outside
    shut = f'oifname "{naming.UPLINK}" ip saddr {own} ip saddr set {addressing.shut_address(own)}'
    outward = [
        f'oifname "{naming.UPLINK}" meta l4proto {{ tcp, udp }} masquerade to :1024-65535',
        f'oifname "{naming.UPLINK}" masquerade',
    ]
    return [
        render_chain("forwards", "type nat hook prerouting priority dstnat; policy accept", inward),
        render_chain("outbound", "type nat hook postrouting priority srcnat; policy accept", outward),
        render_chain("shut", "type filter hook postrouting priority srcnat + 100; policy accept", [shut]),
    ]


def _routed(plans: tuple[NetworkPlan, ...]) -> list[Routed]:
    return [plan for plan in plans if isinstance(plan, Routed)]


def _addresses6(tap: Tap | RoutedTap) -> list[IPv6Address]:
    own = [IPv6Address(tap.address6)] if isinstance(tap, RoutedTap) and tap.address6 else []
    return [addressing.link_local_address(tap.mac), *own]
