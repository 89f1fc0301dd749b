"""What of a node's way to others is right or wrong: names, what forwards, and what keeps packets in."""

from __future__ import annotations

from collections.abc import Iterator

from pcocc_runtime import naming
from pcocc_runtime.check import seen
from pcocc_runtime.findings import FAILED, NOTE, WELL, Finding
from pcocc_runtime.networks.nft_guard import TUNNEL_TABLE
from pcocc_runtime.tables import count

GUARD = f"inet {TUNNEL_TABLE}"
_MOST = 5  # names that a sentence has
_RULES = {
    "forward": (
        f"what VMs send out through {naming.HOST_UPLINKS}",
        (f'iifname "{naming.HOST_UPLINKS}"', f'oifname "{naming.HOST_UPLINKS}"'),
    ),
    "input": (
        f"the tunnels between VMs, UDP ports {naming.TUNNEL_PORTS}", (f"udp dport {naming.TUNNEL_PORTS}",),
    ),
}


def judge_names(one: seen.Names) -> Iterator[Finding]:
    """Judge whether nodes find each other."""
    if not one.every:
        yield Finding(FAILED, "Slurm lists no nodes", "scontrol ping")
    elif one.unknown:
        some = ", ".join(one.unknown[:_MOST]) + (
            f" and {len(one.unknown) - _MOST} more" if len(one.unknown) > _MOST else ""
        )
        yield Finding(
            FAILED, f"no IPv4 address is known here for {some}",
            "each NodeName of slurm.conf must be in DNS or /etc/hosts: getent ahostsv4 NAME"
        )
    else:
        yield Finding(WELL, f"the names of {count(len(one.every), 'node')} have an IPv4 address here")


def judge_walls(one: seen.Walls) -> Iterator[Finding]:
    """Judge whether our rules stand, above all where something forwards."""
    if one.trouble:
        yield Finding(
            FAILED, f"nft or ip cannot be used: {one.trouble}",
            "modprobe nf_tables; are the packages nftables and iproute2 installed?",
        )
        return
    bare = [job for job in one.jobs if f"inet {naming.host_table(job)}" not in one.tables]
    guarded = GUARD in one.tables and not one.unguarded
    if GUARD not in one.tables:
        yield Finding(
            FAILED, f"nft's table {GUARD}, which keeps processes from sending into tunnels, is missing",
            f"{one.mend}; if a firewall service runs 'nft flush ruleset', have it flush its own tables only",
        )  # fmt: skip
    if one.unguarded:
        some = f"{', '.join(one.open)} forward packets"
        what = "this node forwards packets (net.ipv4.ip_forward)" if one.forwards else some
        risk = f", and {what}" if one.forwards or one.open else ""
        yield Finding(
            FAILED, f"the routing rules that keep forwarded packets out of tunnels are missing{risk}", one.mend
        )
    if bare:
        jobs = ",".join(map(str, bare[:_MOST]))
        yield Finding(
            FAILED, f"the firewall of {count(len(bare), 'job')} with VMs here is missing: {jobs}",
            f"scancel {jobs.replace(',', ' ')}: nothing keeps their VMs away from other machines",
        )  # fmt: skip
    if guarded and not bare:
        yield Finding(
            WELL,
            f"nft's table {GUARD} is there"
            + (f", and those of {count(len(one.jobs), 'job')}" if one.jobs else ""),
        )


def judge_filter(one: seen.Filter) -> Iterator[Finding]:
    """Judge whether the site's own filter lets VMs' packets by, maybe by rules that name addresses."""
    closed = [chain for chain in one.chains if chain.hook in _RULES and not chain.ours]
    for chain in closed:
        what = _RULES[chain.hook][0]
        how = "by its last rule" if chain.by_rule else "by its policy"
        level, verb = (
            (FAILED, f"drops {how}")
            if chain.hook == "forward"
            else (NOTE, f"drops {how}, and no rule of it allows,")
        )
        yield Finding(level, f"the site's chain {chain.place} {verb} {what}", _mend_chain(chain))
    if one.legacy:
        yield Finding(
            NOTE,
            f"iptables-legacy has tables here ({', '.join(one.legacy)}), which nft does not list: whether their rules"
            " drop VMs' packets is not known",
            "iptables-legacy -S FORWARD; iptables-legacy -S INPUT",
        )
    if one.trouble:
        yield Finding(NOTE, f"the site's own firewall rules cannot be read: {one.trouble}", "nft list ruleset")
    elif not closed:
        yield Finding(WELL, "the site's own firewall drops none of the VMs' packets as a whole")


def _mend_chain(chain: seen.Chain) -> str:
    """Return the commands that let VMs' packets by, for the firewall that a chain belongs to."""
    if chain.place.split()[1] == "firewalld":  # it takes no rules but its own; "+" is its wildcard
        setting = (
            f"--zone=trusted --add-interface={naming.OWN_PREFIX}+"
            if chain.hook == "forward"
            else f"--add-port={naming.TUNNEL_PORTS}/udp"
        )
        return f"firewall-cmd --permanent {setting} && firewall-cmd --reload"
    rules = "; ".join(f"nft insert rule {chain.place} {rule} accept" for rule in _RULES[chain.hook][1])
    return f"{rules}; and the same where the site keeps its rules"
