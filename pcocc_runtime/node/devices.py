"""Devices of the host that root gives to a job's user and takes back; loaded only for jobs that have devices."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

from pcocc_runtime import naming
from pcocc_runtime.documents.devices import decode_devices
from pcocc_runtime.errors import NodeError
from pcocc_runtime.node import records
from pcocc_runtime.system import files, process


def give(job: int, text: str) -> None:
    """Give devices to a job's user, after the document that names them has been kept for `take_back`.

    NodeError when one belongs to another user; then nothing has been done.
    """
    given = decode_devices(text)
    for path in given.devices:
        if os.stat(path).st_uid not in (0, given.uid):
            message = f"{path} of this node still belongs to another user, whose job has ended but is not released yet"
            raise NodeError(message, hint="try again later")
    files.replace_file(naming.STATE_DIR / f"{job}.devices", text.encode())
    for path in given.devices:
        os.chown(path, given.uid, -1)
    _allow_pinning(job)


def _allow_pinning(job: int) -> None:
    """Let the job's tasks here lock memory, because VFIO pins all of a guest's. Their cgroup limits their memory."""
    record = records.read_record(job)
    if record and record.stepd:
        with contextlib.suppress(PermissionError):  # perhaps root of a container: the launcher says what is missing
            resource.prlimit(record.stepd.pid, resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)


def take_back(job: int) -> None:
    """Take back what `give` has given: afterwards the devices are root's again, and on no network.

    ip(8) fails for functions that are not there any more: it is asked once, and -force goes on with the others.
    """
    kept = decode_devices(Path(naming.STATE_DIR, f"{job}.devices").read_bytes())
    there = [path for path in kept.devices if os.path.exists(path)]
    for path in there:
        os.chown(path, 0, 0)
    if kept.ip:
        with contextlib.suppress(*(() if there == kept.devices else (NodeError,))):
            process.run(["ip", "-force", "-batch", "-"], text=kept.ip)
