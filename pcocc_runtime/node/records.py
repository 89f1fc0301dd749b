"""Root's memory of the jobs on a node: claimed, held, released, reclaimed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath

from pcocc_runtime import naming
from pcocc_runtime.documents import wire
from pcocc_runtime.documents.boot_step import BootStep
from pcocc_runtime.documents.work import Nat, Offer, decode_nat
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks import nat, remove
from pcocc_runtime.system import files, locks, ports, process


@dataclass(frozen=True, slots=True)
class Record:
    """Root's memory of a job on this node, written before anything else is made."""

    job: int
    step: int
    uid: int
    stepd: process.ProcessId
    scratch: str
    heir: int | None = None  # the older step this one makes room for: it takes over the namespace, and who waits inside
    nat: Nat | None = None


class Yield(Exception):
    """There is nothing to be done yet: `status` is the exit status that says why, `step` the boot step that holds the node, if one does."""

    def __init__(self, status: int, step: int | None = None) -> None:
        self.status, self.step = status, step


def reclaim_scratch(scratch: Path) -> None:
    """Delete the disks of jobs that have no record any more: /run was emptied by a reboot, scratch was not."""
    jobs = [int(path.name) for path in scratch.glob("*") if path.name.isdigit()]
    for job in jobs:
        with locks.locked_if_free(lock_of(job)) as free:
            if free and read_record(job) is None:
                files.remove_tree(scratch / str(job))
                Path(lock_of(job)).unlink(missing_ok=True)


def reclaim(except_job: int | None = None) -> None:
    """Release every job on this node whose slurmstepd is gone, but those that another helper is at."""
    for job in jobs_with(".json"):
        if job != except_job and _is_abandoned(job):
            with locks.locked_if_free(lock_of(job)) as free:
                record = read_record(job)
                if free and record is not None and not process.is_alive(record.stepd):
                    release_job(record)
    for job in set(jobs_with(".lock")) - {*jobs_with(".json"), except_job}:
        with locks.locked_if_free(lock_of(job)) as free:
            if free and read_record(job) is None:
                Path(lock_of(job)).unlink(missing_ok=True)
    remove_half_records()


def remove_half_records() -> None:
    """Delete what killed helpers were writing, such as a job's first record, by which it would have been found."""
    files.remove_unfinished(naming.STATE_DIR, lambda pid: process.find_process(pid) is None)


def _is_abandoned(job: int) -> bool:
    record = read_record(job)
    return record is not None and not process.is_alive(record.stepd)


def release_job(record: Record) -> None:
    """End and delete everything of a job on this node; the record goes last, so that a kill in between is made good."""
    clear_step(record)
    remove.remove_netns(record.job)
    last = {".json": 1, ".lock": 2}
    for path in sorted(Path(naming.STATE_DIR).glob(f"{record.job}.*"), key=lambda path: last.get(path.suffix, 0)):
        path.unlink(missing_ok=True)


def clear_step(record: Record) -> None:
    """End and delete what a boot step has made, but the job's namespace, where VM steps may wait for the next."""
    for left in process.find_in_cgroup(f"/job_{record.job}/step_{record.step}/", record.uid):
        if left != record.stepd:  # which has the user's effective uid while it waits for us to set up
            process.kill(left)
    files.remove_tree(naming.job_dir(record.job))
    files.remove_tree(PurePath(record.scratch, str(record.job)))
    remove.remove_networks(record.job)


def read_record(job: int) -> Record | None:
    """Return root's record of a job on this node."""
    raw = files.read_json(naming.STATE_DIR / f"{job}.json")
    if raw is None:
        return None
    return Record(**{**raw, "stepd": process.ProcessId(**raw["stepd"]), "nat": decode_nat(raw.get("nat"))})


def claim(step: BootStep, scratch: str) -> Record:
    """Take the node for this boot step; of two live ones the older, that is the lower step id, has it on every node."""
    old = read_record(step.job)
    if old is not None and old.step != step.step and process.is_alive(old.stepd):
        if old.step < step.step:
            raise Yield(wire.HELPER_DUPLICATE, old.step)
        write_record(replace(old, heir=step.step))
        raise Yield(wire.HELPER_CONFLICT, old.step)
    if old is not None and old.step != step.step:
        clear_step(old)
    stepd = process.find_process(step.stepd)
    if stepd is None:
        raise NodeError(f"the slurmstepd of step {step.job}.{step.step} is gone")
    record = Record(step.job, step.step, step.uid, stepd, scratch, nat=old.nat if old else None)
    write_record(record)
    return record


def hold(record: Record, offer: Offer) -> Record:
    """Choose the job's way out of its namespace among what no other job of this node holds, and record it."""
    if not offer.way_out:
        return record
    with locks.locked_directory(naming.STATE_DIR):
        others = [read_record(job) for job in jobs_with(".json") if job != record.job]
        held = [other.nat for other in others if other and other.nat]
        record = replace(record, nat=nat.choose_nat(offer.ports, record.nat, held, ports.is_free))
        write_record(record)
    return record


def write_record(record: Record) -> None:
    """Replace root's record of a job on this node."""
    files.replace_file(naming.STATE_DIR / f"{record.job}.json", json.dumps(asdict(record)).encode())


def jobs_with(wanted: str) -> list[int]:
    """Return the jobs of which a file of this suffix is kept."""
    names = (os.path.splitext(name) for name in os.listdir(naming.STATE_DIR))
    return [int(stem) for stem, suffix in names if suffix == wanted and stem.isdigit()]


def ensure_state_directory() -> None:
    """Make root's own directory on this node, and that of the jobs."""
    files.ensure_directory(naming.RUN_DIR, 0o755, 0, 0)
    files.ensure_directory(naming.STATE_DIR, 0o700, 0, 0)


def lock_of(job: int) -> PurePath:
    """Return the file that who changes a job on this node has locked."""
    return naming.STATE_DIR / f"{job}.lock"
