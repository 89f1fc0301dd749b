"""Disk images through qemu-img."""

from __future__ import annotations

import errno
import json
import os
from pathlib import PurePath
from typing import Any

from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.images import qcow2, qcow2_tables
from pcocc_runtime.images.qemu_img_text import PROGRESS_END, clean_line, parse_extent, parse_progress
from pcocc_runtime.progress import Advance
from pcocc_runtime.system import held, process, programs


def create_overlay(image: str | None, path: PurePath) -> str | None:
    """Create an empty copy-on-write disk over a qcow2 image, as fast for a large image as for a small one."""
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


_HINT = "install qemu-utils"
_SYSTEM_ERRORS = {
    "No space left on device": errno.ENOSPC, "Disk quota exceeded": errno.EDQUOT,
    "Read-only file system": errno.EROFS,
    "File too large": errno.EFBIG,
}  # fmt: skip
_LEAKS, _UNSUPPORTED = 3, 63  # exit statuses of check (qemu-img(1)); leaks only waste room


def source(path: PurePath, form: str) -> str:
    """Return qemu-img's name for the image at `path`, opened as this format only, and without its backing file."""
    tree: dict[str, Any] = {"driver": form, "file": _file(path)}
    if form in ("qcow2", "vmdk"):
        tree["backing"] = None
    return "json:" + json.dumps(tree)


def chain(path: PurePath) -> str:
    """Return qemu-img's name for a layer together with the layers below it."""
    return "json:" + json.dumps({"driver": "qcow2", "file": _file(path)})


def _file(path: PurePath) -> dict[str, str]:
    # bytes that are not UTF-8 cannot be written in JSON
    if any("\udc80" <= char <= "\udcff" for char in str(path)):
        raise RequestError(
            f"the path {path} is not valid UTF-8, which QEMU requires", "rename that file or directory"
        )
    return {"driver": "file", "filename": str(path)}


def export(address: str, name: str) -> str:
    """Return qemu-img's name for a disk that a QEMU exports at a unix socket (NBD)."""
    return "json:" + json.dumps(
        {"driver": "nbd", "server": {"type": "unix", "path": address}, "export": name}
    )


def convert(image: str, form: str, target: PurePath, watch: Advance, *, compress: bool = False) -> None:
    """Write an image (named by `source`, `chain` or `export`) as a `form` file, on disk when this returns."""
    # O_EXCL: not a file that others have put there
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
    options = [*(["-c"] if compress else []), *(["-o", "force_size=on"] if form == "vpc" else [])]
    _run(["qemu-img", "convert", "-p", "-t", "writeback", "-O", form, *options, image, str(target)], watch)


def create_above(backing: PurePath, size: int, target: PurePath, *, trusted: bool = False) -> None:
    """Create an empty layer of `size` bytes above a layer, which is not opened if it is trusted."""
    unseen = ["-u"] if trusted else []
    _run([
        "qemu-img", "create", "-q", *unseen, "-f", "qcow2", "-b", str(backing), "-F", "qcow2", str(target),
        str(size),
    ])


def create_empty(target: PurePath, size: int) -> None:
    """Create an image of `size` bytes, with nothing in it."""
    _run(["qemu-img", "create", "-q", "-f", "qcow2", str(target), str(size)])


def rename_backing(path: PurePath, backing: str) -> None:
    """Change the name of the backing file in a layer's header; it must be another name of the same file."""
    _run(["qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing, str(path)])


def find_damage(path: PurePath, form: str, size: int) -> str | None:
    """Return what is wrong in the tables of an image of `size` bytes, None when they are right or cannot be checked."""
    image = source(path, form)
    status, said = programs.run_watched(["qemu-img", "check", "-q", image], hint=_HINT)
    if status not in (0, _LEAKS, _UNSUPPORTED):
        return held.show(clean_line(said[0])) if said else f"qemu-img check ended with status {status}"
    # check allows the last cluster to be missing, where QEMU reads zeros
    whole = _is_whole(path, size) if form == "qcow2" else read_extent(image)[1] <= size
    return None if whole else "it is cut short"


def has_unfinished_log(damage: str) -> bool:
    """Tell whether what is wrong with an image is only that its log must be replayed (QEMU, block/vhdx-log.c)."""
    return "log that needs to be replayed" in damage


def repair(path: PurePath, form: str, label: str) -> None:
    """Finish what the last writer of an image has left unfinished; RequestError when that cannot be done."""
    status, said = programs.run_watched(
        ["qemu-img", "check", "-q", "-r", "all", source(path, form)], hint=_HINT
    )
    if status not in (0, _LEAKS):
        text = held.show(clean_line(said[-1])) if said else f"exit status {status}"
        raise RequestError(
            f"{label} was left open by whoever wrote to it last, and cannot be repaired: {text}", _OPEN_HINT
        )


_OPEN_HINT = "open and close it with the program that wrote it, or restore it from a backup"


def _is_whole(path: PurePath, size: int) -> bool:
    """Tell whether a qcow2 image is complete; qemu-img map does not say where compressed data are."""
    with open(path, "rb", buffering=0) as stream:
        fd = stream.fileno()
        return qcow2_tables.is_whole(
            os.pread(fd, qcow2.HEADER_SIZE, 0), size, lambda at, length: os.pread(fd, length, at)
        )


def read_extent(image: str) -> tuple[int, int]:
    """Return the bytes of data in an image, and where in its file the last of them end, as far as that is known."""
    data = end = 0

    def look(line: str) -> bool:
        nonlocal data, end
        extent = parse_extent(line)
        if extent is None:
            return False
        data, end = data + extent[0], max(end, extent[1])
        return True

    programs.run_watched(["qemu-img", "map", "--output=json", image], look, hint=_HINT)
    return data, end


def _run(argv: list[str], watch: Advance | None = None) -> None:
    """Run qemu-img; an error of the file system is raised as the OSError that it is."""

    def progress(line: str) -> bool:
        done = parse_progress(line)
        if done is not None and watch:
            watch(done, PROGRESS_END)
        return done is not None

    status, said = programs.run_watched(argv, progress, hint=_HINT)
    if status:
        text = held.show(clean_line(said[-1])) if said else f"exit status {status}"
        number = next((code for words, code in _SYSTEM_ERRORS.items() if words in text), None)
        if number:
            raise OSError(number, os.strerror(number))
        raise RequestError(f"qemu-img {argv[1]} failed: {text}")
