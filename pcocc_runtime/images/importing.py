"""Importing: a file, stdin, a download or a containerDisk becomes the first or the next revision of an image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import (
    containers,
    download,
    examining,
    folders,
    qemu_img,
    references,
    repository,
    urls,
    writing,
)
from pcocc_runtime.images.images import Found
from pcocc_runtime.images.references import Reference, Repo
from pcocc_runtime.images.writing import WorkDirectory
from pcocc_runtime.progress import Note, Progress
from pcocc_runtime.system import copy, user_files


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to import; `form` is the source's format, None to detect it; `checksum` is (algorithm, hexadecimal sum)."""

    form: str | None = None
    checksum: tuple[str, str] | None = None
    description: str = ""
    compress: bool = False
    update: bool = False

    @property
    def algorithm(self) -> str:
        """Return the algorithm of the checksum."""
        return self.checksum[0] if self.checksum else "sha256"


def import_image(
    source: str, target: Reference, every: Sequence[Repo], wish: ImportOptions, progress: Progress, note: Note
) -> Found:
    """Import an image and return what was stored; `note` is told what the user should know."""
    repo = references.choose_repo(every, target.repo)
    if not wish.update:
        writing.ensure_new(repo, target.name)
    else:
        writing.ensure_vms(repo, target.name)
    with writing.open_repo_work(repo) as work:
        path, label = _fetch(source, work, wish, progress)
        path, form = examining.examine(path, wish.form, label, work.path, progress, note)
        image = qemu_img.source(path, form)
        _ensure_room(image, work, label, wish)
        layer = work.path / "layer"
        qemu_img.convert(image, "qcow2", layer, progress(f"converting from {form}"), compress=wish.compress)
        one = writing.add_revision(
            work, target.name, layer, None, new=not wish.update, description=wish.description,
            custom={"source": label}, progress=progress,
        )  # fmt: skip
    return Found(repo, one)


def _fetch(source: str, work: WorkDirectory, wish: ImportOptions, progress: Progress) -> tuple[Path, str]:
    """Return the source as a local file, its checksum verified, and what to call it in messages."""
    target = work.path / "source"
    scheme, colon, rest = source.partition(":")
    scheme = scheme.lower() if rest.startswith("//") else scheme
    if source == "-":
        got = copy.copy_stream(user_files.read_stdin, target, 0, progress("reading stdin"), wish.algorithm)[1]
        label = "stdin"
    elif scheme in urls.SCHEMES and rest.startswith("//"):
        url = urls.parse_url(source)
        label = url.shown
        got = download.fetch(url, target, progress(f"fetching {label}"), wish.algorithm)[1]
    elif scheme.lower() in containers.PREFIXES and colon:
        if wish.checksum:
            raise RequestError(
                f"--checksum cannot be used for {source}, whose parts have checksums of their own",
                "leave it out",
            )
        return containers.fetch_disk(source, work.path, progress), source
    else:
        _ensure_path(source, scheme, rest)
        path = user_files.absolute_path(source)
        folders.refuse_directory(str(path))
        user_files.read_user_start(str(path), 1, "image")
        with user_files.explaining(str(path), "image"):
            got = (
                copy.hash_file(path, progress("comparing its checksum"), wish.algorithm)
                if wish.checksum
                else ""
            )
        target, label = path, str(path)
    if wish.checksum and got != wish.checksum[1]:
        raise RequestError(
            f"the {wish.algorithm} sum of {label} is {got}, not {wish.checksum[1]}",
            "download it again, and check the sum that its maker publishes",
        )
    return target, label


def _ensure_path(source: str, scheme: str, rest: str) -> None:
    """Raise RequestError when the source is not a file's path, or is one that qemu-img would open as another file."""
    if rest.startswith("//") and re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        raise RequestError(
            f"{urls.hide_secrets(source)} cannot be imported: {scheme}:// is not known",
            "write http://, https://, docker://, oci:DIR or oci-archive:FILE, the path of a file, or - for standard"
            " input",
        )
    if re.fullmatch(r"/dev/stdin|/(dev|proc/self)/fd/[0-9]+", source) or user_files.is_stream(source):
        raise RequestError(
            f"image {source} is not a regular file", f"pipe it in: pcocc image import - NAME <{source}"
        )


def _ensure_room(image: str, work: WorkDirectory, label: str, wish: ImportOptions) -> None:
    if wish.compress:
        return  # how much room that takes is known only afterwards
    needed, free = qemu_img.read_extent(image)[0], repository.read_free(work.repo)
    if needed > free:
        raise RequestError(
            f"{label} needs {needed >> 20} MiB, and the file system of repository {work.repo.name!r} has room"
            f" for {free >> 20}",
            "use another repository, or add --compress; 'fallocate --dig-holes FILE' takes the zeros out of a"
            " raw file",
        )
