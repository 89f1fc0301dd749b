"""What a file to import is, whether it is complete, and the repair of one that its writer left open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import formats, magics, oci_files, qcow2, qemu_img, vhdx
from pcocc_runtime.progress import Note, Progress
from pcocc_runtime.system import copy, regular, user_files


def examine(
    path: Path, form: str | None, label: str, work: Path, progress: Progress, note: Note
) -> tuple[Path, str]:
    """Return the image, which may be a repaired copy in `work`, and its format.

    RequestError when it is not complete, is something else, or refers to other files. `note` is told what the
    user should know.
    """
    head, tail, size = user_files.read_ends(str(path), formats.HEAD_SIZE, formats.TAIL_SIZE, "image")
    try:
        found = form or formats.find_format(head, tail, label if path == Path(label) else None)
    except RequestError as error:
        what, cure = error.message, error.hint
        if head[257:262] == b"ustar":
            kind, cure = oci_files.describe_archive(
                oci_files.read_archive_names(path), label if path == Path(label) else "FILE"
            )
            what = f"the file is {kind}"
        raise RequestError(f"{label} cannot be imported: {what}", cure) from None
    formats.ensure_sound(found, head, tail, size, label)
    if found == "vhdx":
        with _reader(path) as read:
            formats.ensure_no_parent(read, label)
    if found == "raw" and form is None:
        _note_what_may_not_boot(head, label, note)
    if found == "qcow2" and qcow2.was_left_open(head):
        path = _repair(path, found, label, work, progress, note)
    damage = _find_damage(path, found)
    if damage and qemu_img.has_unfinished_log(damage):
        path = _repair(path, found, label, work, progress, note)
        damage = _find_damage(path, found)
    if damage:
        raise RequestError(f"{label} is not a sound {found} image: {damage}", formats.DAMAGED_HINT)
    return path, found


def _note_what_may_not_boot(head: bytes, label: str, note: Note) -> None:
    if magics.is_iso(head):
        note(
            f"{label} is {magics.ISO}, and is stored as a raw disk: VMs boot from it only if it can be written to"
            " a disk, too"
        )
    if bare := magics.find_bare(head):
        note(
            f"{label} is {bare} without partitions or a boot loader, and is stored as a raw disk: VMs boot from it only"
            " with 'kernel', if at all"
        )


@contextmanager
def _reader(path: Path) -> Iterator[vhdx.Read]:
    with user_files.explaining(str(path), "image"), regular.open_regular(path) as stream:
        yield lambda at, length: os.pread(stream.fileno(), length, at)


def _find_damage(path: Path, form: str) -> str | None:
    with user_files.explaining(str(path), "image"):
        return qemu_img.find_damage(path, form, path.stat().st_size) if form != "raw" else None


def _repair(path: Path, form: str, label: str, work: Path, progress: Progress, note: Note) -> Path:
    """Repair an image that was left open, in a copy: the file itself is its owner's."""
    copied = work / "repaired"
    with user_files.explaining(str(path), "image"):
        stream = regular.open_regular(path)
    with stream, open(copied, "xb", buffering=0) as target:
        size, watch = os.fstat(stream.fileno()).st_size, progress("copying it, to repair the copy")
        target.truncate(size)
        for done in copy.copy_extents(stream.fileno(), target.fileno(), 0, size):
            watch(done, size)
    qemu_img.repair(copied, form, label)
    note(
        f"{label} was not closed by whoever wrote to it last: it is imported from a repaired copy, as after a"
        " power failure"
    )
    return copied
