"""Root's part when pcocc is removed: the VMs end, and no namespace, table, setting or directory of ours stays."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path, PurePath

from pcocc_runtime import naming
from pcocc_runtime.errors import PcoccError
from pcocc_runtime.networks.nft_guard import TUNNEL_TABLE, list_narrow, render_rules_removal
from pcocc_runtime.networks.nft_text import render_removal
from pcocc_runtime.node import reclaim, records
from pcocc_runtime.node.main import finish_removal
from pcocc_runtime.system import locks, process, sysctl

_SECONDS = 20.0  # for what users have left in directories


def remove() -> int:
    """Release every job of this node, even if it runs, and undo what was done to the node itself.

    Returns 1 when something stays, which has been logged then.
    """
    if not os.path.isdir(naming.STATE_DIR):
        return 0  # nothing was made here since the node was started
    folders, status = {PurePath(naming.RUN_DIR)}, 0
    for job in sorted(records.jobs_with(".json")):
        try:
            folders |= _end_job(job)
        except (PcoccError, OSError) as error:
            records.note(f"job {job} cannot be released: {error}")
            status = 1
    reclaim.set_strays_aside(naming.RUN_DIR)
    finish_removal(folders, _SECONDS)
    _remove_guard()
    if not status:
        _forget_all(folders)
    return status


def _end_job(job: int) -> set[PurePath]:
    with locks.locked(records.lock_of(job)):
        record = records.read_record(job)
        if record is None:
            return set()  # it has just ended by itself
        records.note(f"job {job} loses its VMs")
        records.release_job(record)
    return set(records.folders_of(record))


def _remove_guard() -> None:
    """Delete our rules and table, after the interfaces that forward for pcocc alone have stopped forwarding."""
    shown = process.run(["ip", "-json", "rule", "show"])
    for name in list_narrow(shown):
        sysctl.write(f"ipv4/conf/{name}/forwarding", "0")
    process.run(["ip", "-batch", "-"], text=render_rules_removal(shown))
    process.run(["nft", "-f", "-"], text=render_removal("inet", TUNNEL_TABLE))


def _forget_all(folders: set[PurePath]) -> None:
    """Delete root's own files, and our own directory in scratch; one in which others have something stays."""
    for path in Path(naming.STATE_DIR).iterdir():
        path.unlink(missing_ok=True)
    for folder in (naming.STATE_DIR, naming.RUN_DIR, *(one for one in folders if one.name == naming.SCRATCH_NAME)):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
