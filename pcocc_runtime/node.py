"""Root's short-lived helper on a node: make a job's private networks, release them, reclaim what a kill left.

Called by the plugin from slurmstepd (`setup`, `release`) and from slurmd (`start`); reads its standard input, the
root-owned /etc/pcocc and its own records, nothing else. Every create may be repeated, every release run twice.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath

from pcocc_runtime import admission, config, layout, naming, netplan
from pcocc_runtime.errors import NodeError, PcoccError, render
from pcocc_runtime.system import accel, files, identity, process

DUPLICATE, CONFLICT = 3, 4  # exit statuses the plugin knows: an older boot step lives, a younger one is in the way
_CONFIG_DIR = "/etc/pcocc"


@dataclass(frozen=True, slots=True)
class Record:
    """Root's memory of a job on this node, written before anything else is made."""

    job: int
    step: int
    uid: int
    stepd: process.ProcessId
    scratch: str
    heir: int | None = None  # the older step this one makes room for: it takes over the namespace, and who waits inside


class _Yield(Exception):
    """Another boot step of the job holds the node; `status` is the exit status that says which must go."""

    def __init__(self, status: int, step: int) -> None:
        self.status, self.step = status, step


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
    except PcoccError as error:
        print(render(error))
        return 1
    except OSError as error:
        print(f"pcocc: error: {os.uname().nodename}: {error}\nhint: ask the admins to look at this node")
        return 1
    return 0


def _setup() -> None:
    step = layout.parse_boot_step(sys.stdin)
    config.ensure_trusted(_CONFIG_DIR)
    site = config.read_site(_CONFIG_DIR)
    plans = netplan.plan_networks(step, site.networks, site.resource_sets)
    sets = [site.all_sets[name] for name, _count in step.sets]
    admission.ensure_compatible(sets, site.all_networks)
    admission.ensure_admitted(sets, lambda: identity.read_person(step.uid, step.gid))
    _ensure_state_directory()
    reclaim(except_job=step.job)
    with files.locked(_lock(step.job)):
        _claim(step, site.scratch)
        chosen = accel.find_accelerator(site.accel, PurePath(site.qemu))
        _make_directories(step, PurePath(site.scratch))
        _make_networks(step, plans)
        _describe(step, plans, site, chosen)
    for rank in step.here.ranks:
        print(f"tap {rank} {','.join(netplan.taps_of(plans, rank))}")


def _release() -> None:
    fields = layout.parse_fields(sys.stdin)
    job = layout.parse_number(fields, "job", naming.MAX_JOB_ID)
    step = layout.parse_number(fields, "step")
    _ensure_state_directory()
    with files.locked(_lock(job)):
        record = read_record(job)
        if record is None:
            Path(_lock(job)).unlink(missing_ok=True)
        else:
            _release_step(record, step)


def _release_step(record: Record, step: int) -> None:
    if record.heir == step and process.is_alive(record.stepd):
        _write_record(replace(record, heir=None))  # the heir has died first
    elif step in (record.step, record.heir):
        (clear if step == record.step and record.heir is not None else release)(record)


def _start() -> None:
    _ensure_state_directory()
    reclaim()
    site = config.read_site(_CONFIG_DIR)
    reclaim_scratch(Path(site.scratch))
    accel.find_accelerator(site.accel, PurePath(site.qemu))


def reclaim_scratch(scratch: Path) -> None:
    """Delete the disks of jobs that have no record any more: /run was emptied by a reboot, scratch was not."""
    jobs = [int(path.name) for path in scratch.glob("*") if path.name.isdigit()]
    for job in jobs:
        with files.locked(_lock(job)):
            if read_record(job) is None:
                files.remove_tree(scratch / str(job))
                Path(_lock(job)).unlink(missing_ok=True)


def reclaim(except_job: int | None = None) -> None:
    """Release every job on this node whose slurmstepd is gone."""
    for name in os.listdir(naming.STATE_DIR):
        job, suffix = os.path.splitext(name)
        if suffix != ".json" or not job.isdigit() or int(job) == except_job:
            continue
        with files.locked(_lock(int(job))):
            record = read_record(int(job))
            if record is not None and not process.is_alive(record.stepd):
                release(record)


def release(record: Record) -> None:
    """End and delete everything of a job on this node; the record goes last, so that a kill in between is made good."""
    clear(record)
    _remove_netns(record.job)
    for path in Path(naming.STATE_DIR).glob(f"{record.job}.*"):
        path.unlink(missing_ok=True)


def clear(record: Record) -> None:
    """End and delete what a boot step has made, but the job's namespace, where VM steps may wait for the next."""
    for left in process.find_in_cgroup(f"/job_{record.job}/step_{record.step}/", record.uid):
        process.kill(left)
    _remove_networks(record.job)
    files.remove_tree(naming.job_dir(record.job))
    files.remove_tree(PurePath(record.scratch, str(record.job)))


def read_record(job: int) -> Record | None:
    """Return root's record of a job on this node."""
    raw = files.read_json(naming.STATE_DIR / f"{job}.json")
    return None if raw is None else Record(**{**raw, "stepd": process.ProcessId(**raw["stepd"])})


def _claim(step: layout.BootStep, scratch: str) -> None:
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
    _write_record(Record(step.job, step.step, step.uid, stepd, scratch))


def _write_record(record: Record) -> None:
    files.replace_file(naming.STATE_DIR / f"{record.job}.json", json.dumps(asdict(record)).encode())


def _make_directories(step: layout.BootStep, scratch: PurePath) -> None:
    os.makedirs(scratch, mode=0o755, exist_ok=True)
    files.ensure_directory(naming.job_dir(step.job), 0o700, step.uid, step.gid)
    files.ensure_directory(scratch / str(step.job), 0o700, step.uid, step.gid)


def _make_networks(step: layout.BootStep, plans: tuple[netplan.NetworkPlan, ...]) -> None:
    from pcocc_runtime.system import netlink  # 0.1 s of import that `start` on an idle node does not need

    peers = [_resolve(node.name) for node in step.peers]
    name = naming.netns_name(step.job)
    netlink.ensure_netns(name)
    inside = netlink.JobNetns(name)
    try:
        inside.ensure_loopback()
        for plan in plans:
            mtu, length = plan.spec.mtu, plan.prefix_length
            inside.ensure_bridge(plan.bridge, plan.bridge_mac, mtu, [(plan.gateway, length), (plan.node_address, length)])
            inside.ensure_source(plan.bridge, str(plan.spec.int_network), plan.node_address)
            inside.ensure_vxlan(plan.vxlan, plan.bridge, plan.vni, plan.port, mtu, peers)
            inside.ensure_taps(plan.bridge, [tap.name for tap in plan.taps], mtu)
    finally:
        inside.close()
    process.run(["nft", "-f", "-"], text=netplan.render_firewall(plans), hint="install the package nftables")
    for plan in plans:
        _start_dnsmasq(step.job, plan)


def _start_dnsmasq(job: int, plan: netplan.NetworkPlan) -> None:
    base = naming.STATE_DIR / f"{job}.dnsmasq{plan.index}"
    pid_file = PurePath(f"{base}.pid")
    _end_dnsmasq(Path(pid_file))
    text = netplan.render_dnsmasq(plan, str(pid_file), "nobody")
    files.replace_file(PurePath(f"{base}.conf"), text.encode())
    process.run(["dnsmasq", f"--conf-file={base}.conf"], hint="install the package dnsmasq-base")


def _end_dnsmasq(pid_file: Path) -> None:
    try:
        pid = int(pid_file.read_text())
        if Path(f"/proc/{pid}/comm").read_text() != "dnsmasq\n":
            return
    except (OSError, ValueError):
        return
    found = process.find_process(pid)
    if found is not None:
        process.kill(found)


def _remove_networks(job: int) -> None:
    for pid_file in Path(naming.STATE_DIR).glob(f"{job}.dnsmasq*.pid"):
        _end_dnsmasq(pid_file)
    from pcocc_runtime.system import netlink

    name = naming.netns_name(job)
    if netlink.netns_exists(name):
        try:
            inside = netlink.JobNetns(name)
        except OSError:
            pass  # made but not mounted: a helper was killed in between
        else:
            inside.remove_links()
            inside.close()


def _remove_netns(job: int) -> None:
    from pcocc_runtime.system import netlink

    name = naming.netns_name(job)
    if netlink.netns_exists(name):
        netlink.remove_netns(name)


def _describe(
    step: layout.BootStep, plans: tuple[netplan.NetworkPlan, ...], site: config.Site, chosen: accel.Accelerator
) -> None:
    """Leave root's findings where the user's launcher reads them."""
    networks = [
        {
            "index": plan.index,
            "name": plan.spec.name,
            "network": str(plan.spec.int_network),
            "mac_prefix": plan.spec.mac_prefix,
            "mtu": plan.spec.mtu,
            "domain": plan.spec.domain_name,
            "gateway": plan.gateway,
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
        "boot_timeout": site.boot_timeout,
        "networks": networks,
    }
    path = naming.job_dir(step.job) / "node.json"
    files.replace_file(path, json.dumps(facts).encode(), 0o644)


def _resolve(name: str) -> str:
    try:
        return str(socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_DGRAM)[0][4][0])
    except OSError:
        raise NodeError(
            f"{os.uname().nodename} cannot resolve the name of the job's node {name}",
            hint="each NodeName of slurm.conf must be in DNS or /etc/hosts of every node",
        ) from None


def _ensure_state_directory() -> None:
    files.ensure_directory(naming.RUN_DIR, 0o755, 0, 0)
    files.ensure_directory(naming.STATE_DIR, 0o700, 0, 0)


def _lock(job: int) -> PurePath:
    return naming.STATE_DIR / f"{job}.lock"
