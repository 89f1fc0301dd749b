"""Root's set-up of a boot step on a node: checked against /etc/pcocc, recorded, made, described for the launcher."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import PurePath

from pcocc_runtime import naming
from pcocc_runtime.documents.boot_step import CONFLICT, DUPLICATE, PLACE, BootStep, parse_boot_step
from pcocc_runtime.errors import NodeError, PcoccError
from pcocc_runtime.networks import build, nat
from pcocc_runtime.networks.plan import NetworkPlan, describe_interfaces, describe_reach, interfaces_of, plan_networks
from pcocc_runtime.node import accelerator, records, removal
from pcocc_runtime.node.records import Record
from pcocc_runtime.settings import directories
from pcocc_runtime.site import admission
from pcocc_runtime.site.site import Site, read_site
from pcocc_runtime.system import accounts, files, ports, process, sysctl

_IPV6 = "ipv6/conf/default/forwarding"  # there unless the kernel was started with ipv6.disable=1
_OTHERS_SECONDS = 5.0  # a set-up spends for jobs whose slurmstepd was killed
_LEFT_SECONDS = 0.5  # and for what users have left in directories


class _Yield(Exception):
    """Another boot step of the job holds the node; `status` is the exit status that says which must go."""

    def __init__(self, status: int, step: int) -> None:
        self.status, self.step = status, step


def set_up(confdir: str) -> int:
    """Make what the boot step on standard input needs here; print its taps, or the step that is in its way, for the plugin.

    Returns 0, or the exit status that says what the plugin is to do.
    """
    step = parse_boot_step(sys.stdin)
    directories.ensure_trusted(confdir)
    site = read_site(confdir)
    plans = plan_networks(step, site.networks, site.resource_sets, ipv6=sysctl.read(_IPV6) is not None)
    sets = [site.all_sets[name] for name, _count in step.sets]
    admission.ensure_compatible(sets, site.all_networks)
    if admission.needs_charge(sets):
        if step.place is None:
            return PLACE  # a set is for certain accounts, partitions or QOS, and the plugin has not asked slurmctld for the job's
        admission.ensure_charged(sets, step.place)
    admission.ensure_admitted(sets, lambda: accounts.read_person(step.uid, step.gid))
    records.ensure_state_directory()
    folders = {*records.reclaim(step.job, _OTHERS_SECONDS), PurePath(site.scratch)}
    removal.finish(folders, _LEFT_SECONDS)
    try:
        with files.locked(records.lock_of(step.job)):
            _make(step, plans, site)
    except _Yield as other:
        print(f"conflict {other.step}")
        return other.status
    except (PcoccError, OSError):
        removal.finish(folders, _LEFT_SECONDS)
        raise
    for rank in step.here.ranks:
        interfaces = interfaces_of(plans, step, site.resource_sets, rank)
        print(f"tap {rank} {','.join(tap.name for _plan, tap in interfaces)}")
    return 0


def _make(step: BootStep, plans: tuple[NetworkPlan, ...], site: Site) -> None:
    record = _claim(step, site.scratch)
    with _undone_on_failure(step.job):
        held = _hold(record, plans)
        chosen = accelerator.find_accelerator(site.accel, PurePath(site.qemu))
        _make_directories(record)
        build.make_networks(step, plans, held)
        _describe(step, plans, site, chosen, held)
        _give_directories(step, record)


@contextlib.contextmanager
def _undone_on_failure(job: int) -> Iterator[None]:
    """Leave nothing of a job whose set-up fails."""
    try:
        yield
    except (PcoccError, OSError):
        record = records.read_record(job)
        if record is not None:
            records.release_job(record)
        raise


def _claim(step: BootStep, scratch: str) -> Record:
    """Take the node for this boot step; of two live ones the older, that is the lower step id, has it on every node."""
    old = records.read_record(step.job)
    if old is not None and old.step not in (None, step.step) and old.stepd is not None and process.is_alive(old.stepd):
        assert old.step is not None
        if old.step < step.step:
            raise _Yield(DUPLICATE, old.step)
        records.write_record(replace(old, heir=step.step))
        raise _Yield(CONFLICT, old.step)
    if old is not None and old.step != step.step:
        records.clear_step(old)
    stepd = process.find_process(step.stepd)
    if stepd is None:
        raise NodeError(f"the slurmstepd of step {step.job}.{step.step} is gone")
    record = Record(step.job, step.step, step.uid, stepd, scratch, nat=old.nat if old else None)
    records.write_record(record)
    return record


def _hold(record: Record, plans: tuple[NetworkPlan, ...]) -> nat.Nat | None:
    """Choose the job's way out of its namespace among what no other job of this node holds, and record it."""
    if not nat.needs_uplink(plans):
        return _read_held(record)
    with files.locked_directory(naming.STATE_DIR):
        others = [records.read_record(job) for job in records.jobs_with(".json") if job != record.job]
        taken = [held for other in others if other and (held := _read_held(other))]
        found = nat.choose_nat(plans, _read_held(record), taken, ports.is_free)
        records.write_record(replace(record, nat=asdict(found) if found else None))
    return found


def _read_held(record: Record) -> nat.Nat | None:
    """Return what a job holds of the node; None also when its record, of another version perhaps, does not tell."""
    try:
        return nat.parse_nat(record.nat)
    except (KeyError, TypeError, AttributeError):
        return None


def _make_directories(record: Record) -> None:
    """Make the job's directories, root's for now; what an earlier try has left there is its user's already, and not gone into."""
    assert record.scratch is not None
    os.makedirs(record.scratch, mode=0o755, exist_ok=True)
    for folder in records.folders_of(record):
        removal.set_aside(folder / str(record.job))
        os.mkdir(folder / str(record.job), 0o700)


def _give_directories(step: BootStep, record: Record) -> None:
    """Give the job's directories to its user: from here on root writes nothing into them."""
    for folder in records.folders_of(record):
        os.chown(folder / str(step.job), step.uid, step.gid, follow_symlinks=False)


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
