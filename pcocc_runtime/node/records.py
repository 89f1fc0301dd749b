"""Root's records of the jobs on a node (documents/job_record.py), and how what they name is removed."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path, PurePath

from pcocc_runtime import naming
from pcocc_runtime.documents.job_record import JobRecord, decode_record, encode_record
from pcocc_runtime.errors import one_line
from pcocc_runtime.networks import removing
from pcocc_runtime.node import removal
from pcocc_runtime.system import files, process

JOB = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


def note(text: str) -> None:
    """Write a line to slurmd's log, where the plugin passes it on, and not into the answer."""
    print(f"pcocc: {one_line(text)}", file=sys.stderr, flush=True)


def read_record(job: int) -> JobRecord | None:
    """Return root's record of a job on this node, None when it has none."""
    try:
        data = Path(naming.STATE_DIR, f"{job}.json").read_bytes()
    except FileNotFoundError:
        return None
    except OSError:
        data = b""
    return decode_record(job, data)


def write_record(record: JobRecord) -> None:
    """Replace root's record of a job on this node."""
    files.replace_file(naming.STATE_DIR / f"{record.job}.json", encode_record(record))


def has_stepd(record: JobRecord) -> bool:
    """Tell whether the slurmstepd of a record still runs; when that is not known, whether any of its job does."""
    return bool(process.find_slurmstepds(record.job)) if record.stepd is None else process.is_alive(record.stepd)


def remove_half_records() -> None:
    """Delete what killed helpers left of `files.replace_file`, such as a job's first record."""
    for path in Path(naming.STATE_DIR).glob("*.tmp"):
        pid = path.stem.rpartition(".")[2]
        if pid.isdecimal() and len(pid) < 10 and process.find_process(int(pid)) is None:
            path.unlink(missing_ok=True)


def release_job(record: JobRecord) -> None:
    """End and delete everything of a job on this node; the record goes last, so that a kill in between leaves it."""
    if record.stepd is None:
        note(f"the record of job {record.job} cannot be read: only what its number tells is released")
    clear_step(record)
    removing.remove_netns(record.job)
    if os.path.exists(naming.STATE_DIR / f"{record.job}.devices"):
        from pcocc_runtime.node import devices  # here: other jobs do not need it

        devices.take_back(record.job)
    last = {".json": 1, ".lock": 2}
    for path in sorted(Path(naming.STATE_DIR).glob(f"{record.job}.*"), key=lambda path: last.get(path.suffix, 0)):
        path.unlink(missing_ok=True)


def clear_step(record: JobRecord) -> None:
    """End and set aside what a boot step has made, except the job's namespace: VM steps may wait in it for the next."""
    if record.group is not None and record.uid is not None:
        process.end(one for one in process.find_in_cgroup(f"{record.group}/", record.uid) if one != record.stepd)
    set_folders_aside(folders_of(record), record.job)
    removing.remove_networks(record.job)


def folders_of(record: JobRecord) -> list[PurePath]:
    """Return where a job has a directory of its own."""
    return [PurePath(folder) for folder in (naming.RUN_DIR, record.scratch) if folder]


def set_folders_aside(folders: Iterable[PurePath], job: int) -> None:
    """Put a job's directories out of everybody's way; one that stays is logged."""
    for folder in folders:
        try:
            removal.set_aside(folder / str(job))
        except OSError as error:
            note(f"{folder / str(job)} stays for now: {error}")


def jobs_with(wanted: str) -> list[int]:
    """Return the jobs that have a file with this suffix."""
    names = (os.path.splitext(name) for name in os.listdir(naming.STATE_DIR))
    return [int(stem) for stem, suffix in names if suffix == wanted and JOB.fullmatch(stem)]


def ensure_state_directory() -> None:
    """Make root's own directory on this node, and that of the jobs."""
    files.ensure_directory(naming.RUN_DIR, 0o755, 0, 0)
    files.ensure_directory(naming.STATE_DIR, 0o700, 0, 0)


def lock_of(job: int) -> PurePath:
    """Return the file to lock while changing a job on this node."""
    return naming.STATE_DIR / f"{job}.lock"
