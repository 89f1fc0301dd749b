"""A directory that is named where an image is meant: what it is, and how to import what is in it."""

from __future__ import annotations

import os
import shlex

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import formats
from pcocc_runtime.system import user_files

_MOST = 5  # disks that the message names


def refuse_directory(path: str) -> None:
    """Raise RequestError when an image is a directory; it says how to import what is there."""
    if not os.path.isdir(path):
        return
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise RequestError(
            f"image {path} is not a regular file, but a directory: {error.strerror}", f"see: ls -ld {path}"
        ) from None
    what, words = _describe(path, names)
    raise RequestError(
        f"image {path} is {f'a directory{what}' if what else 'not a regular file, but a directory'}", words
    )


def _describe(path: str, names: list[str]) -> tuple[str, str]:
    old = user_files.find_last_revision(path)
    if old:
        return ", as pcocc 0.7 kept images", f"import its disk: {_import(old)}"
    if "index.json" in names or "oci-layout" in names:
        return ", an OCI image layout", f"import it as one: {_import(f'oci:{path}')}"
    if "manifest.json" in names and "version" in names:
        return (
            ", as skopeo's dir: has it",
            f"make a layout of it: skopeo copy dir:{shlex.quote(path)} oci:DIR:image, and import oci:DIR",
        )
    parts = [name for name in names if name.endswith(".hds")]
    if parts:
        disk = shlex.quote(os.path.join(path, parts[0]))
        return ", a Parallels disk", f"convert it: qemu-img convert -f parallels -O qcow2 {disk} NEW.qcow2"
    disks = [name for name in names if name.rpartition(".")[2].lower() in formats.SUFFIXES]
    if len(disks) == 1:
        return "", f"import the disk in it: {_import(os.path.join(path, disks[0]))}"
    more = f", such as {', '.join(disks[:_MOST])}" if disks else ""
    return "", f"name a file in it{more}: pcocc image import FILE NAME"


def _import(source: str) -> str:
    return f"pcocc image import {shlex.quote(source)} NAME"
