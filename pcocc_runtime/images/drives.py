"""Persistent drives as files: what must be true of one before a VM may write to it."""

from __future__ import annotations

from pcocc_runtime.documents.cluster import Drive
from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import qcow2
from pcocc_runtime.system import user_files


def ensure_drive(drive: Drive) -> None:
    """Raise RequestError unless a drive is a file that the user can write, of the format that it is said to have."""
    head = user_files.read_user_start(drive.path, qcow2.HEADER_SIZE, "drive")
    user_files.ensure_writable(drive.path, "drive")
    if drive.format == "qcow2":
        qcow2.parse_header(head, drive.path)
    elif head[:4] == qcow2.MAGIC:
        raise RequestError(
            f"drive {drive.path} is a qcow2 file, but would be used as a raw one",
            "say 'format: qcow2' under its path in the template, or PATH,format=qcow2 to 'pcocc disk attach'",
        )
    if drive.mmp == "cluster" and drive.format != "raw":
        message = f"drive {drive.path} is a {drive.format} file, which several VMs cannot write at once"
        raise RequestError(message, "use a raw drive with 'mmp: cluster'")
