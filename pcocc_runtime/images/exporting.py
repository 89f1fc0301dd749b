"""Exporting: an image with all its layers as one file, in any format."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import claims, formats, images, placing, qemu_img
from pcocc_runtime.images.images import Found
from pcocc_runtime.images.references import Repo
from pcocc_runtime.progress import Progress
from pcocc_runtime.system import held, user_files

_PREFIX = ".pcocc-export-"
_FORCE = "name another file, or add --force to replace it"


def export_image(
    found: Found, target: str, form: str | None, every: Sequence[Repo], progress: Progress, *,
    force: bool = False, compress: bool = False,
) -> Path:  # fmt: skip
    """Write an image to a file outside all repositories, which appears when it is complete; return its path."""
    if target == "-":
        raise RequestError(
            "an image cannot be written to standard output",
            "name a file; write './-' for one that is called '-'",
        )
    images.ensure_disk(found)
    path = user_files.absolute_path(target)
    form = form or _form_of(path)
    if compress and form not in ("qcow2", "vmdk"):
        raise RequestError(f"a {form} file cannot be compressed", "use qcow2")
    _ensure_replaceable(path, every)
    with contextlib.suppress(OSError), held.hold(path.parent) as parent:
        claims.sweep(parent, _PREFIX)
    if path.is_dir() or (path.exists() and not force):
        raise RequestError(f"{path} exists", "name a new file" if path.is_dir() else _FORCE)
    try:
        with held.hold(path.parent) as parent, claims.open_work(parent, _PREFIX, shared=False) as work:
            _ensure_room(found, path.parent, compress)
            image = qemu_img.chain(found.path)
            qemu_img.convert(image, form, work.path / "image", progress(f"writing {form}"), compress=compress)
            placing.place_file(work.path / "image", parent / path.name, force)
    except FileExistsError:
        raise RequestError(f"{path} has been created meanwhile", _FORCE) from None
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}") from None
    return path


def _ensure_replaceable(path: Path, every: Sequence[Repo]) -> None:
    """Raise RequestError when the path is that of a device, a pipe or a link, or lies in a repository."""
    if os.path.lexists(path) and not path.is_dir() and (path.is_symlink() or not path.is_file()):
        what = "a symbolic link" if path.is_symlink() else "not a regular file"
        raise RequestError(f"{path} is {what}, and writing there would replace it", "name another file")
    parent = os.path.realpath(path.parent)
    for repo in every:
        if Path(parent).is_relative_to(os.path.realpath(repo.path)):
            raise RequestError(
                f"{path} is inside repository {repo.name!r}, where only pcocc may put files",
                "name another file",
            )


def _form_of(path: Path) -> str:
    form = formats.SUFFIXES.get(path.suffix.removeprefix(".").lower())
    if form is None:
        known = ", ".join(f".{suffix}" for suffix in formats.SUFFIXES)
        hint = f"end it with one of {known}, or add --format"
        raise RequestError(f"the name {path.name!r} does not say which format the file is to have", hint)
    return form


def _ensure_room(found: Found, folder: Path, compress: bool) -> None:
    needed, info = 0 if compress else qemu_img.read_extent(qemu_img.chain(found.path))[0], os.statvfs(folder)
    if needed > info.f_bavail * info.f_frsize:
        raise RequestError(
            f"image {found.reference} needs {needed >> 20} MiB, and the file system of {folder} "
            f"has room for {info.f_bavail * info.f_frsize >> 20}"
        )
