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
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from pcocc_runtime import fabric, layout, naming, nat, netplan, walls
from pcocc_runtime.errors import NodeError, PcoccError, render
from pcocc_runtime.system import accel, files, ports, process, sysctl

if TYPE_CHECKING:
    from pcocc_runtime import config

# exit statuses the plugin knows: an older boot step lives, a younger one is in the way, slurmctld must say where the job runs
DUPLICATE, CONFLICT, PLACE = 3, 4, 5
_CONFIG_DIR = "/etc/pcocc"
_IPV6 = "ipv6/conf/default/forwarding"  # there unless the kernel was started with ipv6.disable=1


@dataclass(frozen=True, slots=True)
class Record:
    """Root's memory of a job on this node, written before anything else is made."""

    job: int
    step: int
    uid: int
    stepd: process.ProcessId
    scratch: str
    heir: int | None = None  # the older step this one makes room for: it takes over the namespace, and who waits inside
    nat: nat.Nat | None = None


class _Yield(Exception):
    """Another boot step of the job holds the node; `status` is the exit status that says which must go."""

    def __init__(self, status: int, step: int) -> None:
        self.status, self.step = status, step


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
    except _Yield as other:
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
    from pcocc_runtime import admission, config  # 40 ms that a release does not need
    from pcocc_runtime.system import identity

    step = layout.parse_boot_step(sys.stdin)
    config.ensure_trusted(_CONFIG_DIR)
    site = config.read_site(_CONFIG_DIR)
    plans = netplan.plan_networks(step, site.networks, site.resource_sets, ipv6=sysctl.read(_IPV6) is not None)
    sets = [site.all_sets[name] for name, _count in step.sets]
    admission.ensure_compatible(sets, site.all_networks)
    if admission.needs_place(sets):
        if step.place is None:
            raise _PlaceWanted
        admission.ensure_placed(sets, step.place)
    admission.ensure_admitted(sets, lambda: identity.read_person(step.uid, step.gid))
    _ensure_state_directory()
    reclaim(except_job=step.job)
    with files.locked(_lock(step.job)):
        record = _claim(step, site.scratch)
        with _undone_on_failure(step.job):
            record = _hold(record, plans)
            chosen = accel.find_accelerator(site.accel, PurePath(site.qemu))
            _make_directories(step, PurePath(site.scratch))
            fabric.make_networks(step, plans, record.nat)
            _describe(step, plans, site, chosen, record.nat)
    for rank in step.here.ranks:
        interfaces = netplan.interfaces_of(plans, step, site.resource_sets, rank)
        print(f"tap {rank} {','.join(tap.name for _plan, tap in interfaces)}")


@contextlib.contextmanager
def _undone_on_failure(job: int) -> Iterator[None]:
    """Leave nothing of a job whose set-up fails."""
    try:
        yield
    except (PcoccError, OSError):
        record = read_record(job)
        if record is not None:
            release(record)
        raise


def _release() -> None:
    fields = layout.parse_fields(sys.stdin)
    job = layout.parse_number(fields, "job", naming.MAX_JOB_ID)
    step = layout.parse_number(fields, "step")
    _ensure_state_directory()
    with files.locked(_lock(job)):
        record = read_record(job)
        if record is None:
            _remove_unfinished()
            Path(_lock(job)).unlink(missing_ok=True)
        else:
            _release_step(record, step)


def _release_step(record: Record, step: int) -> None:
    if record.heir == step and process.is_alive(record.stepd):
        _write_record(replace(record, heir=None))  # the heir has died first
    elif step in (record.step, record.heir):
        (clear if step == record.step and record.heir is not None else release)(record)


def _start() -> None:
    from pcocc_runtime import config

    _ensure_state_directory()
    reclaim()
    walls.ensure_guard()
    site = config.read_site(_CONFIG_DIR)
    reclaim_scratch(Path(site.scratch))
    accel.find_accelerator(site.accel, PurePath(site.qemu))


def reclaim_scratch(scratch: Path) -> None:
    """Delete the disks of jobs that have no record any more: /run was emptied by a reboot, scratch was not."""
    jobs = [int(path.name) for path in scratch.glob("*") if path.name.isdigit()]
    for job in jobs:
        with files.locked_if_free(_lock(job)) as free:
            if free and read_record(job) is None:
                files.remove_tree(scratch / str(job))
                Path(_lock(job)).unlink(missing_ok=True)


def reclaim(except_job: int | None = None) -> None:
    """Release every job on this node whose slurmstepd is gone, but those that another helper is at."""
    for job in _jobs_with(".json"):
        if job != except_job and _is_abandoned(job):
            with files.locked_if_free(_lock(job)) as free:
                record = read_record(job)
                if free and record is not None and not process.is_alive(record.stepd):
                    release(record)
    for job in set(_jobs_with(".lock")) - {*_jobs_with(".json"), except_job}:
        with files.locked_if_free(_lock(job)) as free:
            if free and read_record(job) is None:
                Path(_lock(job)).unlink(missing_ok=True)
    _remove_unfinished()


def _remove_unfinished() -> None:
    """Delete what killed helpers were writing, such as a job's first record, by which it would have been found."""
    files.remove_unfinished(naming.STATE_DIR, lambda pid: process.find_process(pid) is None)


def _is_abandoned(job: int) -> bool:
    record = read_record(job)
    return record is not None and not process.is_alive(record.stepd)


def release(record: Record) -> None:
    """End and delete everything of a job on this node; the record goes last, so that a kill in between is made good."""
    clear(record)
    fabric.remove_netns(record.job)
    last = {".json": 1, ".lock": 2}
    for path in sorted(Path(naming.STATE_DIR).glob(f"{record.job}.*"), key=lambda path: last.get(path.suffix, 0)):
        path.unlink(missing_ok=True)


def clear(record: Record) -> None:
    """End and delete what a boot step has made, but the job's namespace, where VM steps may wait for the next."""
    for left in process.find_in_cgroup(f"/job_{record.job}/step_{record.step}/", record.uid):
        if left != record.stepd:  # which has the user's effective uid while it waits for us to set up
            process.kill(left)
    files.remove_tree(naming.job_dir(record.job))
    files.remove_tree(PurePath(record.scratch, str(record.job)))
    fabric.remove_networks(record.job)


def read_record(job: int) -> Record | None:
    """Return root's record of a job on this node."""
    raw = files.read_json(naming.STATE_DIR / f"{job}.json")
    if raw is None:
        return None
    return Record(**{**raw, "stepd": process.ProcessId(**raw["stepd"]), "nat": nat.parse_nat(raw.get("nat"))})


def _claim(step: layout.BootStep, scratch: str) -> Record:
    """Take the node for this boot step; of two live ones the older, that is the lower step id, has it on every node."""
    old = read_record(step.job)
    if old is not None and old.step != step.step and process.is_alive(old.stepd):
        if old.step < step.step:
            raise _Yield(DUPLICATE, old.step)
        _write_record(replace(old, heir=step.step))
        raise _Yield(CONFLICT, old.step)
    if old is not None and old.step != step.step:
        clear(old)
    stepd = process.find_process(step.stepd)
    if stepd is None:
        raise NodeError(f"the slurmstepd of step {step.job}.{step.step} is gone")
    record = Record(step.job, step.step, step.uid, stepd, scratch, nat=old.nat if old else None)
    _write_record(record)
    return record


def _hold(record: Record, plans: tuple[netplan.NetworkPlan, ...]) -> Record:
    """Choose the job's way out of its namespace among what no other job of this node holds, and record it."""
    if not nat.needs_uplink(plans):
        return record
    with files.locked_directory(naming.STATE_DIR):
        others = [read_record(job) for job in _jobs_with(".json") if job != record.job]
        held = [other.nat for other in others if other and other.nat]
        record = replace(record, nat=nat.choose_nat(plans, record.nat, held, ports.is_free))
        _write_record(record)
    return record


def _write_record(record: Record) -> None:
    files.replace_file(naming.STATE_DIR / f"{record.job}.json", json.dumps(asdict(record)).encode())


def _jobs_with(wanted: str) -> list[int]:
    names = (os.path.splitext(name) for name in os.listdir(naming.STATE_DIR))
    return [int(stem) for stem, suffix in names if suffix == wanted and stem.isdigit()]


def _make_directories(step: layout.BootStep, scratch: PurePath) -> None:
    os.makedirs(scratch, mode=0o755, exist_ok=True)
    files.ensure_directory(naming.job_dir(step.job), 0o700, step.uid, step.gid)
    files.ensure_directory(scratch / str(step.job), 0o700, step.uid, step.gid)


def _describe(
    step: layout.BootStep,
    plans: tuple[netplan.NetworkPlan, ...],
    site: config.Site,
    chosen: accel.Accelerator,
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
        "reach": netplan.describe_reach(plans, step, site.resource_sets),
        "interfaces": netplan.describe_interfaces(plans, step, site.resource_sets),
        "reverse_nat": [[one.rank, one.vm_port, one.host_port] for one in held.forwards] if held else [],
    }
    path = naming.job_dir(step.job) / "node.json"
    files.replace_file(path, json.dumps(facts).encode(), 0o644)


def _ensure_state_directory() -> None:
    files.ensure_directory(naming.RUN_DIR, 0o755, 0, 0)
    files.ensure_directory(naming.STATE_DIR, 0o700, 0, 0)


def _lock(job: int) -> PurePath:
    return naming.STATE_DIR / f"{job}.lock"
