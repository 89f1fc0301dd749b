"""Root's short-lived helper on a node: make a job's private networks, release them, reclaim what a kill left.

Called by the plugin from slurmstepd (`setup`, `release`) and slurmd (`start`), and when the package goes
(`remove`); reads its standard input, the root-owned /etc/pcocc and its own records, nothing else. Every
create may be repeated, every release run twice.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePath

from pcocc_runtime import naming
from pcocc_runtime.documents.fields import parse_fields, parse_number
from pcocc_runtime.documents.job_record import JobRecord
from pcocc_runtime.errors import NodeError, PcoccError, render
from pcocc_runtime.node import records, removal
from pcocc_runtime.system import locks, process

CONFIG_DIR = "/etc/pcocc"
_RELEASE_SECONDS = 5.0  # for what users have left in directories


def main(argv: list[str] | None = None) -> int:
    """Run one verb; print the result the plugin reads, or the error that the job's user will read."""
    words = sys.argv[1:] if argv is None else argv
    verbs = {"setup": _set_up, "release": _release, "start": _start, "remove": _remove}
    try:
        if len(words) != 1 or words[0] not in verbs:
            raise NodeError("usage: node setup|release|start|remove", hint="this program is called by the pcocc plugin")
        os.umask(0o022)
        return verbs[words[0]]()
    except PcoccError as error:
        print(render(error))
    except OSError as error:
        print(f"pcocc: error: {os.uname().nodename}: {error}\nhint: ask the admins to look at this node")
    return 1


def _set_up() -> int:
    from pcocc_runtime.node.setup import set_up  # and all that it needs, which a release does not

    return set_up(CONFIG_DIR)


def _release() -> int:
    fields = parse_fields(sys.stdin)
    job = parse_number(fields, "job", naming.MAX_JOB_ID)
    step = parse_number(fields, "step")
    process.leave_step(job, step)
    if not os.path.isdir(naming.STATE_DIR):
        return 0  # the package's removal has released all jobs, and ended this step
    records.ensure_state_directory()
    with locks.locked(records.lock_of(job)):
        record = records.read_record(job)
        records.remove_half_records()
        if record is None:
            Path(records.lock_of(job)).unlink(missing_ok=True)
        elif record.heir == step and record.stepd is not None and records.has_stepd(record):
            records.write_record(replace(record, heir=None))  # the step that was to take over has ended first
        elif step in (record.step, record.heir) or record.step is None:
            (records.clear_step if step == record.step and record.heir is not None else records.release_job)(record)
    finish_removal(records.folders_of(record or JobRecord(job)), _RELEASE_SECONDS)
    return 0


def _start() -> int:
    from pcocc_runtime.node.start import start

    return start()


def _remove() -> int:
    from pcocc_runtime.node.remove import remove

    return remove()


def finish_removal(folders: Iterable[PurePath], seconds: float) -> None:
    """Delete what was set aside in some folders, and say when that takes longer."""
    if not removal.finish(folders, seconds):
        records.note("some files that ended jobs have left are set aside here; they are deleted later")
