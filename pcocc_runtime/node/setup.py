"""Root's set-up of a boot step on a node: planned by nobody, recorded and carried out by root."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import NamedTuple

from pcocc_runtime import naming
from pcocc_runtime.documents import wire
from pcocc_runtime.documents.fields import MAX_REQUEST, parse_fields, parse_number
from pcocc_runtime.documents.job_record import JobRecord
from pcocc_runtime.documents.work import ChargeWanted, Held, Nat, Offer, decode_nat, encode_nat
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks import nat
from pcocc_runtime.node import accelerator, apply, doing, planner, reclaim, records, removal
from pcocc_runtime.system import files, libc, locks, process, regular, trust
from pcocc_runtime.system.cgroups import parse_step_group

_OTHERS_SECONDS = 5.0  # that a set-up spends on jobs whose slurmstepd was killed
_LEFT_SECONDS = 0.5  # and for what users have left in directories
_NO_SETUID_NO_DEVICES = 2 | 4  # MS_NOSUID, MS_NODEV: sys/mount.h
_LIMITS = "mode=700,size=256m,nr_inodes=65536"  # of a job's own part of /run; a VM takes half a MiB and 20 inodes of it


class Claimant(NamedTuple):
    """What root itself must know of a boot step; only its planner reads the rest of the request."""

    job: int
    step: int
    uid: int
    gid: int
    stepd: int


class _Yield(Exception):
    """Another boot step of the job holds the node; `status` is the exit status that says which must go."""

    def __init__(self, status: int, step: int) -> None:
        self.status, self.step = status, step


def set_up(confdir: str) -> int:
    """Make what the boot step on standard input needs here; print its taps, or the step in its way, for the plugin.

    Returns 0, or the exit status that says what the plugin is to do.
    """
    request = sys.stdin.read(MAX_REQUEST + 1)
    if len(request) > MAX_REQUEST:
        raise NodeError(f"the plugin's request is longer than {MAX_REQUEST >> 20} MiB", "ask for fewer VMs or nodes")
    fields = parse_fields(request.splitlines())
    job = parse_number(fields, "job", naming.MAX_JOB_ID)
    step = Claimant(job, *(parse_number(fields, key) for key in Claimant._fields[1:]))
    process.leave_step(step.job, step.step)
    trust.ensure_root_only(confdir)
    records.ensure_state_directory()
    try:
        with planner.planning(request, confdir) as plan:
            answer = _make_room_and_make(step, plan)
    except ChargeWanted:
        return wire.HELPER_CHARGE
    except _Yield as other:
        print(f"conflict {other.step}")
        return other.status
    print(answer, end="")
    return 0


def _make_room_and_make(step: Claimant, plan: planner.Planner) -> str:
    with doing.doing("taking back what ended jobs have left"):
        folders = reclaim.reclaim(step.job, _OTHERS_SECONDS)  # while the planner is at work
    offer = plan.hear_offer()
    folders.add(PurePath(offer.scratch))
    removal.finish(folders, _LEFT_SECONDS)
    try:
        with contextlib.ExitStack() as held:
            with doing.doing("waiting for another helper of this job"):
                held.enter_context(locks.locked(records.lock_of(step.job)))
            return _make(step, plan, offer)
    except BaseException:  # also a signal: what was set aside goes, and it is raised again
        removal.finish(folders, _LEFT_SECONDS)
        raise


def _make(step: Claimant, plan: planner.Planner, offer: Offer) -> str:
    record = _claim(step, trust.make_root_only(offer.scratch))
    with _undone_on_failure(step.job):
        held = _hold(record, offer)
        with doing.doing("trying /dev/kvm"):
            chosen = accelerator.find_accelerator(offer.accel, PurePath(offer.qemu))
        kept = regular.read_start(naming.STATE_DIR / naming.ABILITIES_FILE, 1 << 20) or b""
        work = plan.hear_work(Held(held, chosen.kind, chosen.why, kept.decode(errors="replace")))
        _make_directories(record)
        apply.make_networks(step.job, work.acts)
        _give_directories(step, record, work.node.encode())
    return work.answer


@contextlib.contextmanager
def _undone_on_failure(job: int) -> Iterator[None]:
    """Leave nothing of a job whose set-up fails."""
    try:
        yield
    except BaseException:  # whatever it is, it is raised again
        record = records.read_record(job)
        if record is not None:
            records.release_job(record)
        raise


def _claim(step: Claimant, scratch: str) -> JobRecord:
    """Take the node for this boot step; of two live ones, the older (the lower step id) gets it on every node."""
    old = records.read_record(step.job)
    if old is not None and old.step not in (None, step.step) and old.stepd is not None and process.is_alive(old.stepd):
        assert old.step is not None
        if old.step < step.step:
            raise _Yield(wire.HELPER_DUPLICATE, old.step)
        records.write_record(replace(old, heir=step.step))
        raise _Yield(wire.HELPER_CONFLICT, old.step)
    if old is not None and old.step != step.step:
        records.clear_step(old)
    stepd = process.find_process(step.stepd)
    if stepd is None:
        raise NodeError(f"the slurmstepd of step {step.job}.{step.step} is gone")
    group = parse_step_group(Path(f"/proc/{stepd.pid}/cgroup").read_text(), step.job, step.step)
    record = JobRecord(step.job, step.step, step.uid, stepd, scratch, group=group, nat=old.nat if old else "null")
    records.write_record(record)
    return record


def _hold(record: JobRecord, offer: Offer) -> Nat | None:
    """Choose a way out of the job's namespace that no other job of this node holds, and record it."""
    if not offer.way_out:
        return decode_nat(record.nat)
    with locks.locked_directory(naming.STATE_DIR):
        others = [records.read_record(job) for job in records.jobs_with(".json") if job != record.job]
        taken = [held for other in others if other and (held := decode_nat(other.nat))]
        found = nat.choose_nat(offer.ports, decode_nat(record.nat), taken, lambda port: port not in offer.busy)
        records.write_record(replace(record, nat=encode_nat(found)))
    return found


def _make_directories(record: JobRecord) -> None:
    """Make the job's directories, owned by root for now; what an earlier try has given to the user is set aside."""
    for folder in records.folders_of(record):
        removal.set_aside(folder / str(record.job))
        os.mkdir(folder / str(record.job), 0o700)


def _give_directories(step: Claimant, record: JobRecord, node: bytes) -> None:
    """Give the job's directories to its user: from here on root writes nothing into them.

    Where the user could fill the node's /run, the job's part of it is a file system of its own. Mount namespaces
    made before, such as a job container's, do not see that: there everything is in the directory below it.
    """
    place = naming.job_dir(step.job)
    files.replace_file(place / naming.NODE_FILE, node, 0o644)
    for folder in records.folders_of(record):
        os.chown(folder / str(step.job), step.uid, step.gid, follow_symlinks=False)
    if os.stat(naming.RUN_DIR).st_dev == os.stat("/run").st_dev:
        libc.mount("pcocc", place, _NO_SETUID_NO_DEVICES, "tmpfs", _LIMITS)
        files.replace_file(place / naming.NODE_FILE, node, 0o644)
        os.chown(place, step.uid, step.gid)
