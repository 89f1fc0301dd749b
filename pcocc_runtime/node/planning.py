"""What root's helper has planned by nobody: from the plugin's request and the site's files to acts, node.json and the answer."""

from __future__ import annotations

import io
import os
from typing import IO

from pcocc_runtime.documents.boot_step import BootStep, parse_boot_step
from pcocc_runtime.documents.node import encode_node
from pcocc_runtime.documents.verdict import KVM_DEVICE
from pcocc_runtime.documents.work import MAX_LINE, Offer, Work, decode_held, encode_line
from pcocc_runtime.networks import acts, host
from pcocc_runtime.networks.plan import find_ways_out, plan_networks, plan_port_wishes
from pcocc_runtime.node.describe import describe_node
from pcocc_runtime.node.doing import doing
from pcocc_runtime.node.planner import ChargeWanted
from pcocc_runtime.site import admission
from pcocc_runtime.site.site import Site, read_site
from pcocc_runtime.system import accounts, sysctl

_IPV6 = "ipv6/conf/default/forwarding"  # there unless the kernel was started with ipv6.disable=1


def work_out(request: str, confdir: str, question: IO[bytes], answer: IO[bytes]) -> None:
    """Offer, hear what root holds, and leave the work, for a request; without one, offer what the site has set and no more.

    ConfigError, RequestError and NodeError say why it cannot be; ChargeWanted: who the job is charged to must be known.
    """
    with doing("reading /etc/pcocc"):
        site = read_site(confdir)
    if not request:
        answer.write(encode_line(Offer(site.scratch, site.accel, site.qemu, False, ())))
        return
    step = parse_boot_step(io.StringIO(request))
    with doing(f"asking this node's users and groups about uid {step.uid}"):
        ensure_admitted(step, site)
    plans = plan_networks(step, site.networks, site.resource_sets, ipv6=sysctl.read(_IPV6) is not None)
    ways_out = bool(find_ways_out(plans))
    answer.write(encode_line(Offer(site.scratch, site.accel, site.qemu, ways_out, plan_port_wishes(plans))))
    answer.flush()
    with doing("looking up the names of the job's nodes"):
        facts = host.read_host(step, plans)  # may take its time, while root claims the node
    held = decode_held(question.readline(MAX_LINE + 1))
    made = acts.plan_acts(step.job, plans, held.nat, facts)
    node = encode_node(describe_node(step, plans, site, held, os.path.exists(KVM_DEVICE))).decode()
    kvm = f"kvm {KVM_DEVICE}\n" if held.accel == "kvm" else ""  # has the plugin hand it to who may not open it
    answer.write(encode_line(Work(made, node, acts.render_answer(step, plans, site.resource_sets) + kvm)))


def ensure_admitted(step: BootStep, site: Site) -> None:
    """Raise RequestError unless whoever runs the job may have its resource sets, and these go together."""
    sets = [site.all_sets[name] for name, _count in step.sets if name in site.all_sets]
    admission.ensure_compatible(sets, site.all_networks)
    if admission.needs_charge(sets):
        if step.place is None:
            raise ChargeWanted
        admission.ensure_charged(sets, step.place)
    admission.ensure_admitted(sets, lambda: accounts.read_person(step.uid, step.gid))
