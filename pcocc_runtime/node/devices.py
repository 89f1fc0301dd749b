"""Devices of the host that root gives to a job's user and takes back; loaded only for jobs that have some."""

from __future__ import annotations

import os
from pathlib import Path

from pcocc_runtime import naming
from pcocc_runtime.documents.devices import decode_devices
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks.removing import IPROUTE
from pcocc_runtime.system import files, process


def give(job: int, text: str) -> None:
    """Give devices to a job's user, after the document that names them is kept for `take_back`.

    NodeError, before anything is done, when one belongs to another user.
    """
    given = decode_devices(text)
    for path in given.devices:
        if os.stat(path).st_uid not in (0, given.uid):
            message = f"{path} of this node still belongs to another user, whose job has ended but is not released yet"
            raise NodeError(message, hint="try again later")
    files.replace_file(naming.STATE_DIR / f"{job}.devices", text.encode())
    for path in given.devices:
        os.chown(path, given.uid, -1)


def take_back(job: int) -> None:
    """Take back what `give` has given: the devices are root's again, and on no network."""
    kept = decode_devices(Path(naming.STATE_DIR, f"{job}.devices").read_bytes())
    for path in filter(os.path.exists, kept.devices):
        os.chown(path, 0, 0)
    if kept.ip:
        process.run(["ip", "-force", "-batch", "-"], text=kept.ip, hint=IPROUTE)
