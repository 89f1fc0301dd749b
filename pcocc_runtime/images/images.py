"""Images in repositories: found, listed, and checked to be disks that VMs can run from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pcocc_runtime.errors import PcoccError, RequestError
from pcocc_runtime.images import metadata, qcow2, references, repository
from pcocc_runtime.images.metadata import Revision
from pcocc_runtime.images.references import Reference, Repo
from pcocc_runtime.system import user_files


@dataclass(frozen=True, slots=True)
class Found:
    """A revision of an image, and the repository that has it."""

    repo: Repo
    revision: Revision

    @property
    def path(self) -> Path:
        """Return the path of the top layer, which is the disk."""
        return repository.layer_file(self.repo, self.revision.layers[-1])

    @property
    def reference(self) -> str:
        """Return the full reference, which names this revision and no other."""
        return f"{self.repo.name}:{self.revision.entry}"


def list_images(every: Sequence[Repo]) -> dict[str, Repo]:
    """Return the name of every image and the repository it comes from; no image's file is opened."""
    found: dict[str, Repo] = {}
    for repo in reversed(every):
        with repository.explained(repo):
            found.update(dict.fromkeys(repository.list_entries(repo), repo))
    return found


def list_names(every: Sequence[Repo], problems: list[PcoccError]) -> dict[str, str]:
    """Return the names of all images and their repositories; errors of unreadable repositories go to `problems`."""
    found: dict[str, str] = {}
    for repo in every:
        try:
            found |= {name: repo.name for name in list_images([repo]) if name not in found}
        except PcoccError as error:
            problems.append(error)
    return found


def find_image(reference: Reference, every: Sequence[Repo]) -> Found:
    """Return the revision that a reference names; RequestError when no repository has it."""
    others: list[str] = []
    for repo in every if reference.repo is None else (references.choose_repo(every, reference.repo),):
        with repository.explained(repo), contextlib.suppress(FileNotFoundError):
            revisions = repository.list_entries(repo).get(reference.name, [])
            wanted = max(revisions, default=None) if reference.revision is None else reference.revision
            if wanted in revisions:
                return Found(repo, repository.read_revision(repo, reference.name, wanted))
            others += [f"{repo.name}:{reference.name}@{revision}" for revision in revisions]
    if others:
        raise RequestError(
            f"image {reference.name!r} has no revision {reference.revision}", f"it has {some(others)}"
        )
    place = (
        f"in repository {reference.repo!r}"
        if reference.repo
        else f"in any repository ({some([r.name for r in every])})"
    )
    raise RequestError(f"there is no image {reference.name!r} {place}", "see 'pcocc image list'")


def some(words: Sequence[str]) -> str:
    """Return the last ten of many words, and how many more there are."""
    return ", ".join([*words[-10:], *([f"and {len(words) - 10} more"] if len(words) > 10 else [])]) or "none"


def find_boot_disk(text: str, every: Sequence[Repo]) -> tuple[str, str]:
    """Return path and full reference of the disk that a reference names; RequestError when VMs cannot run from it."""
    found = find_image(references.parse_reference(text), every)
    ensure_disk(found)
    return str(found.path), found.reference


def read_images(every: Sequence[Repo], problems: list[PcoccError]) -> list[Found]:
    """Return every revision of every image; errors of unreadable repositories and metadata files go to `problems`."""
    found: list[Found] = []
    for repo in every:
        try:
            with repository.explained(repo):
                found += [Found(repo, one) for one in repository.read_all(repo, problems)]
        except PcoccError as error:
            problems.append(error)
    return found


def read_size(found: Found) -> int | None:
    """Return the size in bytes of an image's disk, None when it cannot be read."""
    # it names its layer, because pcocc 0.7 copies it to revisions with another disk
    known = found.revision.custom.get("disk")
    if isinstance(known, dict) and known.get("layer") == found.revision.layers[-1]:
        size = known.get("size")
        if type(size) is int and 0 < size < 1 << 63:  # a bool is an int too
            return size
    try:
        return read_header(found.path, "image").size if found.revision.kind == "vm" else None
    except PcoccError:
        return None


def stored_sizes(every: Sequence[Found]) -> dict[str, int | None]:
    """Return the bytes that each layer takes on disk, None for a missing one."""
    sizes: dict[str, int | None] = {}
    for found in every:
        for layer in found.revision.layers:
            try:
                sizes[layer] = repository.layer_file(found.repo, layer).stat().st_blocks * 512
            except OSError:
                sizes[layer] = None
    return sizes


def describe_repo(repo: Repo) -> tuple[Repo, str, int, int]:
    """Return a repository with its state in a few words, the number of its images, and the free bytes."""
    try:
        with repository.explained(repo):
            if not repository.is_created(repo):
                return repo, "not created yet", 0, repository.read_free(repo)
            state = (
                "writable"
                if os.access(repository.work_parent(repo), os.W_OK, effective_ids=True)
                else "read-only"
            )
            return repo, state, len(repository.list_entries(repo)), repository.read_free(repo)
    except PcoccError as error:
        return repo, f"error: {error.message}", 0, 0


def ensure_disk(found: Found) -> None:
    """Raise RequestError unless the image is a VM's and each layer's backing file is exactly the layer below."""
    if found.revision.kind != "vm":
        raise RequestError(f"image {found.reference} is for containers, not for VMs")
    if len(found.revision.layers) > metadata.MAX_LAYERS:
        raise RequestError(
            f"image {found.reference} has more than {metadata.MAX_LAYERS} layers", flatten_hint(found)
        )
    below: Path | None = None
    for number, layer in enumerate(found.revision.layers):
        path = repository.layer_file(found.repo, layer)
        header = read_header(path, f"layer {number} of image {found.reference},")
        backing = (
            os.path.realpath(path.parent / header.backing_file) if header.backing_file is not None else None
        )
        if backing != (os.path.realpath(below) if below else None):
            raise RequestError(
                f"image {found.reference} is damaged: the backing file of {path} is not the layer below",
                "see 'pcocc image verify'",
            )
        below = path


def flatten_hint(found: Found) -> str:
    """Return the hint that says how to merge an image's layers."""
    return f"merge them: 'pcocc image export {found.reference} FILE.qcow2', then import that file"


def read_header(path: Path, what: str) -> qcow2.Header:
    """Return the header of a qcow2 file that the caller may read."""
    return qcow2.parse_header(user_files.read_user_start(str(path), qcow2.HEADER_SIZE, what), str(path))
