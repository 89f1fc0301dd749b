"""Adding to a repository: layers first, then the metadata that make them a revision."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import claims, metadata, qcow2, qemu_img, references, removal, repository
from pcocc_runtime.images.images import Found, ensure_disk, flatten_hint, read_header
from pcocc_runtime.images.metadata import Revision
from pcocc_runtime.images.references import Reference, Repo
from pcocc_runtime.images.sizes import parse_size, render_size
from pcocc_runtime.progress import Progress, silent
from pcocc_runtime.system import held
from pcocc_runtime.system.accounts import user_name
from pcocc_runtime.system.copy import copy_stream, hash_file


@dataclass(frozen=True, slots=True)
class WorkDirectory:
    """A user's own directory for files that become layers; gc keeps it, and the layers that `note` names."""

    repo: Repo
    path: Path
    note: Path


@contextlib.contextmanager
def open_repo_work(repo: Repo) -> Iterator[WorkDirectory]:
    """Begin to add to a repository, which is created if necessary; OSErrors in the block are explained."""
    with repository.explained(repo, changing=True):
        if not repository.is_created(repo):
            repository.make_root(repo)
        if not repository.is_created(repo) or not repository.work_parent(repo).is_dir():
            with lock_repository(repo):
                repository.complete(repo)
        removal.sweep_repo(repo)
        with (
            repository.open_parts(repo, ".tmp") as parent,
            claims.open_work(parent, repository.WORK_PREFIX, shared=True) as work,
        ):
            yield WorkDirectory(repo, work.path, work.note)


def lock_repository(repo: Repo) -> contextlib.AbstractContextManager[None]:
    """Hold a repository's lock, for short steps only."""
    return claims.locked_path(repository.lock_path(repo), f"repository {repo.name!r}")


def pin(work: WorkDirectory, layers: Sequence[str]) -> list[str]:
    """Keep these layers from gc while `work` is open; return those that the repository lacks."""
    with lock_repository(work.repo):
        held.create_file(work.path / "pins", "".join(f"{layer}\n" for layer in layers).encode(), 0o644)
        os.rename(work.path / "pins", work.note)
        return [layer for layer in layers if not repository.has_layer(work.repo, layer)]


def ensure_new(repo: Repo, name: str) -> None:
    """Raise RequestError when the repository has an image of that name already."""
    with repository.explained(repo):
        if name in repository.list_entries(repo):
            raise taken(repo, name)


def ensure_vms(repo: Repo, name: str) -> None:
    """Raise RequestError when the repository has an image of that name that is not for VMs."""
    with repository.explained(repo), contextlib.suppress(FileNotFoundError):
        revisions = repository.list_entries(repo).get(name, [])
        if revisions and repository.read_revision(repo, name, revisions[-1]).kind != "vm":
            raise RequestError(
                f"image {repo.name}:{name} is for containers, not for VMs", "choose another name"
            )


def taken(repo: Repo, name: str) -> RequestError:
    """Return the error for a name that is taken."""
    return RequestError(
        f"repository {repo.name!r} has an image {name!r} already",
        f"choose another name, or delete that image first: pcocc image delete {repo.name}:{name}",
    )


def add_revision(
    work: WorkDirectory,
    name: str,
    layer: Path,
    parent: Found | None,
    *,
    digest: str | None = None,
    new: bool = False,
    description: str = "",
    custom: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Revision:
    """Make `layer`, a finished qcow2 file in `work`, the next revision of an image.

    Its backing file is the disk of `parent`, or it has none when `parent` is None. The parent may be in
    another repository: layers that are missing here are copied. `digest` is the layer's sum, given when the
    name of its backing file is right already. `new` refuses a name that is taken.
    """
    below = parent.revision.blobs if parent else ()
    if parent:
        ensure_layers_left(parent)
    fetched = fetch_layers(work, parent, progress) if parent else {}
    if parent and digest is None:
        qemu_img.rename_backing(layer, metadata.backing_name(parent.revision.layers[-1]))
    header = read_header(layer, "the new layer")
    if header.backing_file is not None and not parent:
        wrong = f"the new layer {layer} has the backing file {header.backing_file!r}"
        raise RequestError(wrong, "say which image it is based on")
    digest = digest or hash_file(layer, progress("computing its checksum"))
    facts = {**(custom or {}), "disk": {"layer": digest, "size": header.size}}
    one = Revision(name, 0, "vm", user_name(), time.time(), (*below, digest), facts, description)
    return publish(work, one, {**fetched, digest: layer}, new=new, progress=progress)


def ensure_layers_left(parent: Found) -> None:
    """Raise RequestError when an image has as many layers as it can have."""
    count = len(parent.revision.blobs)
    if count >= metadata.MAX_LAYERS:
        message = f"image {parent.reference} has {count} layers, and an image can have {metadata.MAX_LAYERS} at most"
        raise RequestError(message, flatten_hint(parent))


def fetch_layers(work: WorkDirectory, source: Found, progress: Progress) -> dict[str, Path]:
    """Copy the layers of an image that this repository lacks into `work`, and pin those that it has."""
    fetched = {}
    missing = pin(work, source.revision.layers)
    for layer in source.revision.layers:
        if layer not in missing and not _is_cut_short(work.repo, source.repo, layer):
            continue
        fetched[layer] = work.path / layer
        with repository.open_repo_layer(source.repo, layer) as (read, size):
            _length, digest = copy_stream(read, fetched[layer], size, progress(f"copying layer {layer[:12]}"))
        if digest != layer:
            raise RequestError(
                f"image {source.reference} is damaged: the content of layer {layer} does not match the"
                " checksum in its name", f"see 'pcocc image verify {source.reference}'",
            )
    return fetched


def _is_cut_short(repo: Repo, source: Repo, layer: str) -> bool:
    """Tell whether a repository's layer is missing, or shorter than in another repository."""
    here, there = repository.find_length(repo, layer), repository.find_length(source, layer)
    return here is None or (there is not None and here < there)


def publish(
    work: WorkDirectory, one: Revision, files: Mapping[str, Path], *, new: bool, progress: Progress = silent
) -> Revision:
    """Put `files` (by sha256), then the metadata, in place under the next free number; return what was stored.

    A layer that is there already is read, and replaced only if it is damaged: VMs may have it open.
    """
    damaged = set()
    for layer, path in files.items():  # before the lock: it may take long
        held.flush(path)
        watch = progress(f"comparing layer {layer[:12]}")
        if repository.is_damaged(work.repo, layer, path.stat().st_size, watch):
            damaged.add(layer)
    with lock_repository(work.repo):
        repository.refresh(work.repo)
        revisions = repository.list_entries(work.repo).get(one.name, [])
        if new and revisions:
            raise taken(work.repo, one.name)
        missing = repository.find_missing(work.repo, [layer for layer in one.layers if layer not in files])
        if missing:
            raise RequestError(
                f"layer {missing} was removed from repository {work.repo.name!r} meanwhile", "try again"
            )
        for layer, path in files.items():
            repository.put_layer(work.repo, path, layer, layer in damaged)
        number = metadata.next_revision(revisions)
        while not repository.put_revision(work.repo, stored := replace(one, revision=number), work.path):
            number += 1
    return stored


def copy_image(source: Found, target: Reference, every: Sequence[Repo], progress: Progress) -> Found:
    """Make a new image of the layers of another one, in any repository."""
    repo = references.choose_repo(every, target.repo)
    ensure_new(repo, target.name)
    with open_repo_work(repo) as work:
        fetched = fetch_layers(work, source, progress)
        one = replace(source.revision, name=target.name, owner=user_name(), timestamp=time.time())
        return Found(repo, publish(work, one, fetched, new=True, progress=progress))


def resize_image(found: Found, change: str, progress: Progress) -> Found:
    """Make a revision with a larger disk; `change` is a size such as 20G, or +5G for that much more."""
    ensure_disk(found)
    old = read_header(found.path, "image").size
    size = parse_size(change, old)
    if size == old:
        raise RequestError(f"image {found.reference} has {render_size(old)} already", "give a larger size")
    if size > qcow2.MAX_SIZE:
        raise RequestError(f"{change} is too large: a disk can have {render_size(qcow2.MAX_SIZE)} at most")
    if size < old:
        raise RequestError(
            f"image {found.reference} has {render_size(old)}, and a disk cannot be made smaller",
            "the file systems in it would be cut off",
        )
    with open_repo_work(found.repo) as work:
        pin(work, found.revision.layers)
        layer = work.path / "layer"
        qemu_img.create_above(found.path, size, layer)
        one = add_revision(
            work,
            found.revision.name,
            layer,
            found,
            description=found.revision.description,
            custom=found.revision.custom,
            progress=progress,
        )
    return Found(found.repo, one)
