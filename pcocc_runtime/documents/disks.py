"""What a save must know of a VM: its disks on the node, and the image below the first of them, a copy-on-write layer.

The launcher writes it into the VM's directory, from the job's frozen document. The file is the user's own,
and so are the rights of whoever reads it, so everything that it names is checked again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pcocc_runtime.errors import NodeError

if TYPE_CHECKING:
    from pcocc_runtime.documents.cluster import Group
    from pcocc_runtime.qemu.disks import Disk

DISKS_FILE = "disks.json"
MAX_DISKS = 1 << 24  # bytes of the file


@dataclass(frozen=True, slots=True)
class DiskFact:
    """A disk's path; `mmp` of a persistent drive (templates.py), None for the layer upon the image."""

    path: str
    mmp: str | None = None


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """The disks in QEMU's order; the image's path and name (REPO:NAME@REV), None without; the job's scratch."""

    disks: tuple[DiskFact, ...]
    image: str | None
    origin: str | None
    scratch: str


def encode_disks(group: Group, disks: Sequence[Disk], scratch: str) -> bytes:
    """Return the content of the file; persistent drives are the last of `disks`."""
    modes = [None] * (len(disks) - len(group.persistent)) + [drive.mmp for drive in group.persistent]
    pairs = [[disk.path, mmp] for disk, mmp in zip(disks, modes, strict=True)]
    return json.dumps(
        {"disks": pairs, "image": group.image, "origin": group.origin, "scratch": scratch}
    ).encode()


def decode_disks(data: bytes | None, vm: str) -> DiskFacts:
    """Return the facts in the file's content, or NodeError; `data` is None when there is no file."""
    try:
        tree = json.loads(data or b"")
        disks = tuple(
            DiskFact(_text(path), mmp if mmp is None else _text(mmp)) for path, mmp in tree["disks"]
        )
        image, origin = (tree[key] if tree[key] is None else _text(tree[key]) for key in ("image", "origin"))
        return DiskFacts(disks, image, origin, _text(tree["scratch"]))
    except (LookupError, TypeError, ValueError, RecursionError):
        text = f"the disks of {vm} are not known: {DISKS_FILE} in its directory is missing or damaged"
        raise NodeError(text, "start a new job") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
