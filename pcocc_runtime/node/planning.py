"""What the planner works out as user nobody: from request and site's files to acts, node.json and the answer."""

from __future__ import annotations

import functools
import io
import os
import shutil
from dataclasses import replace
from pathlib import PurePath
from typing import IO

from pcocc_runtime import naming
from pcocc_runtime.documents.abilities import decode_abilities, encode_abilities
from pcocc_runtime.documents.boot_step import BootStep, parse_boot_step
from pcocc_runtime.documents.node import encode_node
from pcocc_runtime.documents.verdict import KVM_DEVICE
from pcocc_runtime.documents.work import (
    MAX_LINE,
    Act,
    ChargeWanted,
    Held,
    Offer,
    Work,
    decode_held,
    encode_line,
)
from pcocc_runtime.networks import acts, host
from pcocc_runtime.networks.plan import (
    NetworkPlan,
    find_ways_out,
    plan_networks,
    plan_port_ranges,
    plan_port_wishes,
)
from pcocc_runtime.networks.step_functions import StepFunctions, describe_functions, plan_function_acts
from pcocc_runtime.node.describe import describe_node
from pcocc_runtime.node.doing import doing
from pcocc_runtime.node.giving import find_step_functions
from pcocc_runtime.site import admission
from pcocc_runtime.site.rules import Rules, VmLimit
from pcocc_runtime.site.site import Site, read_rules, read_site
from pcocc_runtime.system import accounts, ports, sysctl
from pcocc_runtime.system.qemu_abilities import ask_qemu, identify

_IPV6 = "ipv6/conf/default/forwarding"  # there unless the kernel was started with ipv6.disable=1


def work_out(request: str, confdir: str, question: IO[bytes], answer: IO[bytes]) -> None:
    """Offer, hear what root holds, and answer with the work; without a request, only offer what the site has set.

    ConfigError, RequestError and NodeError say why it cannot be done; ChargeWanted asks for what the job is charged to.
    """
    with doing("reading /etc/pcocc"):
        site = read_site(confdir)
    scratch = str(PurePath(site.scratch, naming.SCRATCH_NAME))
    if not request:
        answer.write(
            encode_line(
                Offer(scratch, site.accel, site.qemu, False, plan_port_ranges(site.networks.values()))
            )
        )
        return
    step = parse_boot_step(io.StringIO(request))
    with doing(f"asking this node's users and groups about uid {step.uid}"):
        _ensure_admitted(step, site, read_rules(confdir))
    functions = find_step_functions(step, site)
    site = without_functions(site)
    plans = plan_networks(step, site.networks, site.resource_sets, ipv6=sysctl.read(_IPV6) is not None)
    wishes = plan_port_wishes(plans)
    busy = sorted(
        port
        for port in (ports.read_busy() if wishes else ())
        if any(one.low <= port <= one.high for one in wishes)
    )
    answer.write(
        encode_line(Offer(scratch, site.accel, site.qemu, bool(find_ways_out(plans)), wishes, tuple(busy)))
    )
    answer.flush()
    with doing("looking up the names of the job's nodes"):
        facts = host.read_host(step, plans)  # this may take long; root claims the node meanwhile
    held = decode_held(question.readline(MAX_LINE + 1))
    facts = replace(facts, queues=site.network_queues > 1, tc=shutil.which("tc") is not None)
    answer.write(encode_line(_plan_work(step, site, plans, functions, held, facts)))


def _plan_work(
    step: BootStep, site: Site, plans: tuple[NetworkPlan, ...], functions: StepFunctions, held: Held,
    facts: acts.HostFacts,
) -> Work:
    """Return what is left for root, from what it holds and what this host says of itself."""
    has, kept = ask_own(site.qemu, held.abilities)
    made = plan_function_acts(functions, step.uid, (*kept, *acts.plan_acts(step.job, plans, held.nat, facts)))
    told = replace(
        describe_node(step, plans, site, held, os.path.exists(KVM_DEVICE)),
        functions=describe_functions(functions), has=has,
    )
    node = encode_node(told).decode()
    devices = acts.render_devices(held.accel, site.network_queues, site.vhost_net)
    return Work(made, node, acts.render_taps(step, plans, site.resource_sets) + devices)


def ask_own(qemu: str, kept: str) -> tuple[tuple[str, ...] | None, tuple[Act, ...]]:
    """Return what the node's QEMU can do, None when it does not say, and acts to keep an answer newer than `kept`."""
    key = identify(qemu, "tcg")
    if key is None:
        return None, ()
    known = decode_abilities(kept.encode(), key)
    if known is not None:
        return tuple(sorted(known.has)), ()
    with doing(f"asking {qemu} what it can do"):
        found = ask_qemu(qemu, "tcg")
    if found is None:
        return None, ()
    return tuple(sorted(found.has)), (Act("keep", False, encode_abilities(found, key).decode()),)


def without_functions(site: Site) -> Site:
    """Return the site with those networks of its resource sets only that have frames, and so interfaces of ours."""
    sets = {
        name: tuple(one for one in networks if one in site.networks)
        for name, networks in site.resource_sets.items()
    }
    return replace(site, resource_sets=sets)


def _ensure_admitted(step: BootStep, site: Site, rules: Rules) -> None:
    """Raise RequestError unless the user may have these sets and so many VMs, and the sets fit together."""
    sets = [site.all_sets[name] for name, _count in step.sets if name in site.all_sets]
    admission.ensure_compatible(sets, site.all_networks)
    limits = admission.find_tight((VmLimit(site.max_vms), *rules.limits), step.vm_count)
    sets += [
        replace(site.all_sets[name], access=access)
        for name, access in rules.sets
        if name in {one.name for one in sets}
    ]
    if admission.needs_charge([*sets, *limits]):
        if step.charge is None:
            raise ChargeWanted
        admission.ensure_charged(sets, step.charge)
    person = functools.cache(lambda: accounts.read_person(step.uid, step.gid))
    admission.ensure_admitted(sets, person)
    admission.ensure_few(limits, step.vm_count, step.charge, person)
