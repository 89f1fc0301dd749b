"""dnsmasq.conf(5) text for one L3 network on one node: leases for the node's own VMs, names of all.

Each name is a record, in its full and its short form. In a large cluster, names come from ranges instead
(synth-domain), because dnsmasq takes seconds to read ten thousands of records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address

from pcocc_runtime import addressing, naming
from pcocc_runtime.networks.plan import Routed, RoutedTap

LISTED = 2048  # VMs whose names are records
_ALWAYS = (
    "bind-interfaces", "except-interface=lo", "no-resolv", "no-hosts", "no-ping", "leasefile-ro",
    "dhcp-authoritative",
    "domain-needed",
)  # fmt: skip


def render_dnsmasq(plan: Routed, others: Iterable[Routed]) -> str:
    """Return the configuration for `plan`; VMs also find the names of the other networks that they are on."""
    user = naming.DNSMASQ_USER
    lines = [
        *_ALWAYS, f"interface={plan.bridge}", f"user={user}", f"group={user}",
        f"listen-address={plan.gateway}",
    ]
    lines += [*_domain(plan), *_names((plan, *others)), *_leases(plan)]
    if plan.network6:
        lines += _leases6(plan)
    if server := find_server(plan):
        lines.append(f"server={server}")
    lines += [_host(tap) for tap in plan.taps]
    return "\n".join(lines) + "\n"


def find_server(plan: Routed) -> IPv4Address | None:
    """Return the site's DNS server, which is asked for other names, if VMs may reach it themselves; else None."""
    server, allowed = plan.spec.dns_server, plan.spec.allow_outbound
    if isinstance(allowed, bool):
        return server if allowed else None
    return server if server and any(server in network for network in allowed) else None


def _domain(plan: Routed) -> list[str]:
    """Return lines that keep questions about our own names and addresses here."""
    name = plan.spec.domain_name
    networks = [str(plan.spec.int_network), *([str(plan.network6)] if plan.network6 else [])]
    return [f"domain={name}", f"local=/{name}/", *(f"domain={name},{network},local" for network in networks)]


def _leases(plan: Routed) -> list[str]:
    net, spec = plan.spec.int_network, plan.spec
    options = {
        "router": plan.gateway,
        "dns-server": plan.gateway,
        "domain-search": ",".join(_search(plan)),
        "mtu": spec.mtu,
    }
    if spec.ntp_server:
        options["ntp-server"] = str(spec.ntp_server)
    lines = [f"dhcp-range={net.network_address},static,{net.netmask},infinite"]
    return lines + [f"dhcp-option=option:{name},{value}" for name, value in options.items()]


def _leases6(plan: Routed) -> list[str]:
    """Return lines for DHCPv6, and for router advertisements that call only the router's address on-link."""
    assert plan.network6
    return [
        f"listen-address={plan.gateway6}",
        "enable-ra",
        f"dhcp-range={plan.network6.network_address},static,off-link,{plan.network6.prefixlen},infinite",
        f"dhcp-option=option6:dns-server,[{plan.gateway6}]",
        f"dhcp-option=option6:domain-search,{','.join(_search(plan))}",
    ]


def _search(plan: Routed) -> list[str]:
    return list(dict.fromkeys([plan.spec.domain_name, *plan.spec.dns_search]))


def _host(tap: RoutedTap) -> str:
    six = f",[{tap.address6}]" if tap.address6 else ""
    return f"dhcp-host={tap.mac},{tap.address}{six},{naming.vm_name(tap.rank)},infinite"


def _names(plans: Iterable[Routed]) -> Iterator[str]:
    """Yield the names of the VMs; where a VM is on several networks of one domain, the first gives its address."""
    named: dict[str, set[int]] = {}
    whole: set[str] = set()
    for plan in plans:
        domain = plan.spec.domain_name
        if domain in whole:
            continue
        if plan.members.has_all and plan.members.vms > LISTED and domain not in named:
            whole.add(domain)
            yield from _range(plan)
            continue
        known = named.setdefault(domain, set())
        ranks = [
            rank for first, last in plan.members.runs for rank in range(first, last + 1) if rank not in known
        ]
        known.update(ranks)
        yield from (_record(plan, rank) for rank in ranks)


def _range(plan: Routed) -> Iterator[str]:
    """Yield ranges of names; an IPv6 one must be a prefix for dnsmasq, so it covers VMs up to a power of two."""
    net, last, domain = plan.spec.int_network, plan.members.vms - 1, plan.spec.domain_name
    yield f"synth-domain={domain},{addressing.vm_address(net, 0)},{addressing.vm_address(net, last)},vm*"
    if plan.network6:
        prefix = f"{addressing.vm_address6(plan.network6, 0)}/{128 - last.bit_length()}"
        yield f"synth-domain={domain},{prefix},vm*"


def _record(plan: Routed, rank: int) -> str:
    addresses = [str(addressing.vm_address(plan.spec.int_network, rank))]
    if plan.network6:
        addresses.append(str(addressing.vm_address6(plan.network6, rank)))
    name = naming.vm_name(rank)
    return f"host-record={name}.{plan.spec.domain_name},{name},{','.join(addresses)}"
