"""What a save must know of a VM: its disks on the node, and the image that the first of them is a copy-on-write layer of.

The launcher writes it into the VM's directory, from the job's frozen document. It is the user's own, and so are the rights
of whoever reads it: what it names is looked at again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pcocc_runtime.errors import NodeError

if TYPE_CHECKING:
    from pcocc_runtime.document import Group
    from pcocc_runtime.qemu_disks import Disk

FILE = "disks.json"


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """The paths of the disks in QEMU's order; the image's path and name (REPO:NAME@REV), each None when it has none."""

    disks: tuple[str, ...]
    image: str | None
    origin: str | None

    @property
    def has_overlay(self) -> bool:
        """Tell whether the first disk is a layer upon an image, and not a persistent drive."""
        return self.image is not None


def render_facts(group: Group, disks: Sequence[Disk]) -> bytes:
    """Return the content of the file."""
    tree = {"disks": [disk.path for disk in disks], "image": group.image, "origin": group.origin}
    return json.dumps(tree).encode()


def parse_facts(tree: object, vm: str) -> DiskFacts:
    """Return the facts in the file's JSON; NodeError when it is not what `render_facts` wrote."""
    if isinstance(tree, dict):
        disks, image, origin = tree.get("disks"), tree.get("image"), tree.get("origin")
        if isinstance(disks, list) and all(isinstance(path, str) for path in disks) and _is_name(image) and _is_name(origin):
            return DiskFacts(tuple(disks), image, origin)
    raise NodeError(f"what disks {vm} has is not known: {FILE} in its directory is missing or damaged", "start a new job")


def _is_name(value: object) -> bool:
    return value is None or isinstance(value, str)
