"""Disk images through qemu-img."""

from __future__ import annotations

import os
from pathlib import PurePath

from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.system import process


def create_overlay(image: str | None, path: PurePath) -> str | None:
    """Create an empty copy-on-write disk over a qcow2 image; its cost does not depend on the image's size."""
    if image is None:
        return None
    if not os.access(image, os.R_OK):
        raise RequestError(
            f"the image {image} cannot be read here",
            hint="images must be on a file system all nodes share, and readable by you",
        )
    try:
        process.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", str(path)],
            hint="install qemu-utils on the node",
        )
    except NodeError as error:
        if "No space left" in str(error):
            raise NodeError(
                f"the scratch file system {path.parent} is full", hint="free space there, or use other nodes"
            ) from None
        raise
    return str(path)
