"""Jobs that ended without a release, since their slurmstepd was killed or the node restarted; and lost nft tables."""

from __future__ import annotations

import os
import time
from pathlib import Path, PurePath

from pcocc_runtime import naming
from pcocc_runtime.errors import PcoccError
from pcocc_runtime.node import records
from pcocc_runtime.system import locks, process

TABLES = ".nft"  # ends the name of a job's file with the text of its tables in the host's namespace


def reclaim(except_job: int | None = None, seconds: float = float("inf")) -> set[PurePath]:
    """Release every job on this node whose slurmstepd is gone, unless another helper works on it, for so long.

    Returns the folders where something of them may have been set aside. A failure is logged, and tried again later.
    """
    end, folders = time.monotonic() + seconds, {PurePath(naming.RUN_DIR)}
    for job in records.jobs_with(".json"):
        if job != except_job and time.monotonic() < end:
            try:
                folders |= _reclaim_job(job)
            except (PcoccError, OSError) as error:
                records.note(f"job {job} has ended and cannot be released yet: {error}")
    for job in set(records.jobs_with(".lock")) - {*records.jobs_with(".json"), except_job}:
        _forget_lock(job)
    _restore_tables()
    set_strays_aside(naming.RUN_DIR)
    records.remove_half_records()
    return folders


def _reclaim_job(job: int) -> set[PurePath]:
    record = records.read_record(job)
    if record is None or records.has_stepd(record):
        return set()
    with locks.locked_if_free(records.lock_of(job)) as free:
        record = records.read_record(job)
        if not free or record is None or records.has_stepd(record):
            return set()
        records.release_job(record)
    return set(records.folders_of(record))


def _forget_lock(job: int) -> None:
    with locks.locked_if_free(records.lock_of(job)) as free:
        if free and records.read_record(job) is None:
            Path(records.lock_of(job)).unlink(missing_ok=True)


def set_strays_aside(folder: PurePath) -> None:
    """Set aside the directories of jobs that have no record any more: /run was emptied by a reboot, scratch was not."""
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if records.JOB.fullmatch(name) and int(name) <= naming.MAX_JOB_ID and records.read_record(int(name)) is None:
            with locks.locked_if_free(records.lock_of(int(name))) as free:
                if free and records.read_record(int(name)) is None:
                    records.set_folders_aside([folder], int(name))
                    Path(records.lock_of(int(name))).unlink(missing_ok=True)


def _restore_tables() -> None:
    """Make nft tables of jobs again that somebody deleted, as by `nft flush ruleset`: VMs need them to reach out."""
    jobs = records.jobs_with(TABLES)
    there = process.run(["nft", "list", "tables"]).split() if jobs else ()
    for job in jobs:
        text = naming.STATE_DIR / f"{job}{TABLES}"
        if naming.host_table(job) not in there and records.read_record(job):
            with locks.locked_if_free(records.lock_of(job)) as free:
                if free and os.path.exists(text):  # else it is being released, or set up
                    process.run(["nft", "-f", str(text)])
                    records.note(f"nft tables of job {job} were missing, and are there again; who runs 'nft flush'?")
