"""Root's short-lived helper on a node: make a job's private networks, release them, reclaim what a kill left.

Called by the plugin from slurmstepd (`setup`, `release`) and from slurmd (`start`); reads its standard input, the
root-owned /etc/pcocc and its own records, nothing else. Every create may be repeated, every release run twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from pcocc_runtime import naming
from pcocc_runtime.documents.boot_step import PLACE, BootStep, parse_boot_step, parse_fields, parse_number
from pcocc_runtime.errors import NodeError, PcoccError, render
from pcocc_runtime.networks import boundary, build, nat
from pcocc_runtime.networks.plan import NetworkPlan, describe_interfaces, describe_reach, interfaces_of, plan_networks
from pcocc_runtime.node import accelerator
from pcocc_runtime.node.records import (
    Record,
    Yield,
    claim,
    clear_step,
    ensure_state_directory,
    hold,
    lock_of,
    read_record,
    reclaim,
    reclaim_scratch,
    release_job,
    remove_half_records,
    write_record,
)
from pcocc_runtime.system import files, locks, process, sysctl

if TYPE_CHECKING:
    from pcocc_runtime.site.site import Site

_CONFIG_DIR = "/etc/pcocc"
_IPV6 = "ipv6/conf/default/forwarding"  # there unless the kernel was started with ipv6.disable=1


class _PlaceWanted(Exception):
    """A resource set is for certain accounts, partitions or QOS, and the plugin has not asked slurmctld for the job's."""


def main(argv: list[str] | None = None) -> int:
    """Run one verb; print the result the plugin reads, or the error its user will read."""
    words = sys.argv[1:] if argv is None else argv
    verbs = {"setup": _setup, "release": _release, "start": _start}
    try:
        if len(words) != 1 or words[0] not in verbs:
            raise NodeError("usage: node setup|release|start", hint="this program is called by the pcocc plugin")
        os.umask(0o022)
        verbs[words[0]]()
    except Yield as other:
        print(f"conflict {other.step}")
        return other.status
    except _PlaceWanted:
        return PLACE
    except PcoccError as error:
        print(render(error))
        return 1
    except OSError as error:
        print(f"pcocc: error: {os.uname().nodename}: {error}\nhint: ask the admins to look at this node")
        return 1
    return 0


def _setup() -> None:
    from pcocc_runtime.settings import directories
    from pcocc_runtime.site import admission
    from pcocc_runtime.site.site import read_site  # 40 ms that a release does not need
    from pcocc_runtime.system import accounts

    step = parse_boot_step(sys.stdin)
    directories.ensure_trusted(_CONFIG_DIR)
    site = read_site(_CONFIG_DIR)
    plans = plan_networks(step, site.networks, site.resource_sets, ipv6=sysctl.read(_IPV6) is not None)
    sets = [site.all_sets[name] for name, _count in step.sets]
    admission.ensure_compatible(sets, site.all_networks)
    if admission.needs_charge(sets):
        if step.place is None:
            raise _PlaceWanted
        admission.ensure_charged(sets, step.place)
    admission.ensure_admitted(sets, lambda: accounts.read_person(step.uid, step.gid))
    ensure_state_directory()
    reclaim(except_job=step.job)
    with locks.locked(lock_of(step.job)):
        record = claim(step, site.scratch)
        with _undone_on_failure(step.job):
            record = hold(record, plans)
            chosen = accelerator.find_accelerator(site.accel, PurePath(site.qemu))
            _make_directories(step, PurePath(site.scratch))
            build.make_networks(step, plans, record.nat)
            _describe(step, plans, site, chosen, record.nat)
    for rank in step.here.ranks:
        interfaces = interfaces_of(plans, step, site.resource_sets, rank)
        print(f"tap {rank} {','.join(tap.name for _plan, tap in interfaces)}")


@contextlib.contextmanager
def _undone_on_failure(job: int) -> Iterator[None]:
    """Leave nothing of a job whose set-up fails."""
    try:
        yield
    except (PcoccError, OSError):
        record = read_record(job)
        if record is not None:
            release_job(record)
        raise


def _release() -> None:
    fields = parse_fields(sys.stdin)
    job = parse_number(fields, "job", naming.MAX_JOB_ID)
    step = parse_number(fields, "step")
    ensure_state_directory()
    with locks.locked(lock_of(job)):
        record = read_record(job)
        if record is None:
            remove_half_records()
            Path(lock_of(job)).unlink(missing_ok=True)
        else:
            _release_step(record, step)


def _release_step(record: Record, step: int) -> None:
    if record.heir == step and process.is_alive(record.stepd):
        write_record(replace(record, heir=None))  # the heir has died first
    elif step in (record.step, record.heir):
        (clear_step if step == record.step and record.heir is not None else release_job)(record)


def _start() -> None:
    from pcocc_runtime.site.site import read_site

    ensure_state_directory()
    reclaim()
    boundary.ensure_guard()
    site = read_site(_CONFIG_DIR)
    reclaim_scratch(Path(site.scratch))
    accelerator.find_accelerator(site.accel, PurePath(site.qemu))


def _make_directories(step: BootStep, scratch: PurePath) -> None:
    os.makedirs(scratch, mode=0o755, exist_ok=True)
    files.ensure_directory(naming.job_dir(step.job), 0o700, step.uid, step.gid)
    files.ensure_directory(scratch / str(step.job), 0o700, step.uid, step.gid)


def _describe(
    step: BootStep,
    plans: tuple[NetworkPlan, ...],
    site: Site,
    chosen: accelerator.Accelerator,
    held: nat.Nat | None,
) -> None:
    """Leave root's findings where the user's launcher reads them."""
    networks = [
        {
            "index": plan.index,
            "name": plan.spec.name,
            "layer": plan.spec.layer,
            "members": plan.members,
            "network": str(plan.spec.int_network) if plan.is_routed else None,
            "mac_prefix": plan.spec.mac_prefix,
            "mtu": plan.spec.mtu,
            "domain": plan.spec.domain_name,
            "search": plan.spec.dns_search if plan.is_routed else (),
            "gateway": plan.gateway,
            "outbound": allowed if isinstance(allowed := plan.spec.allow_outbound, bool) else [str(one) for one in allowed],
            "network6": str(plan.network6) if plan.network6 else None,
            "ranks": [tap.rank for tap in plan.taps],
        }
        for plan in plans
    ]
    facts = {
        "job": step.job,
        "step": step.step,
        "node": step.here.name,
        "nodes": [[node.name, list(node.ranks)] for node in step.nodes],
        "vms": step.vm_count,
        "accel": chosen.kind,
        "accel_why": chosen.why,
        "qemu": site.qemu,
        "scratch": str(PurePath(site.scratch, str(step.job))),
        "cache": asdict(site.image_cache) if site.image_cache else None,
        "boot_timeout": site.boot_timeout,
        "shutdown_grace": site.shutdown_grace,
        "networks": networks,
        "reach": describe_reach(plans, step, site.resource_sets),
        "interfaces": describe_interfaces(plans, step, site.resource_sets),
        "reverse_nat": [[one.rank, one.vm_port, one.host_port] for one in held.forwards] if held else [],
    }
    path = naming.job_dir(step.job) / "node.json"
    files.replace_file(path, json.dumps(facts).encode(), 0o644)
