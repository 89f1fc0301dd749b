"""Saving a running VM's disk as a revision of an image: docs/decisions/012-save.md tells how and why.

The disk is a copy-on-write layer upon the image's. A second layer is put upon it, with the guest's file
systems frozen for that moment. From then on the first layer does not change any more, and is copied into the
repository while the VM goes on. Then the VM's keeper merges the second layer into the first, however this
process ends. Persistent drives: drive.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pcocc_runtime.documents.save import MERGE_AGAIN, SAVE_SOCKET
from pcocc_runtime.errors import NodeError, PcoccError, RequestError
from pcocc_runtime.images import images, metadata, qcow2, qemu_img, references, repository, writing
from pcocc_runtime.images.images import Found
from pcocc_runtime.images.references import Repo
from pcocc_runtime.images.second_layer import open_second_layer, put_second_layer
from pcocc_runtime.progress import Note, Progress
from pcocc_runtime.save.copy import copy_layer
from pcocc_runtime.save.drive import copy_drive
from pcocc_runtime.save.moment import SavedVm, frozen, on_scratch
from pcocc_runtime.system import accounts
from pcocc_runtime.system.saver_connection import SaverConnection

_T = TypeVar("_T")

MERGE_SECONDS = 60.0  # that we wait until the disk is as before; the keeper goes on after that


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """What to save, and how: the name of a new image, None for a revision of the VM's own; the drive's number.

    `clean` says that the caller has had the guest put aside what identifies it.
    """

    dest: str | None = None
    drive: int = 0
    full: bool = False
    safe: bool = False
    clean: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Where a save goes: `parent` is the image below, None for none; `origin` the one whose next revision it is."""

    repo: Repo
    name: str
    parent: Found | None
    origin: Found | None

    @property
    def new(self) -> bool:
        """Tell whether this is a new image."""
        return self.origin is None


def save_vm(
    vm: SavedVm, wish: SaveOptions, every: Sequence[Repo], progress: Progress, note: Note
) -> tuple[Found, int]:
    """Save a disk; return the revision that was made, and the bytes its layer takes."""
    ensure_savable(vm, wish, note)
    target = choose_target(vm, wish, every, note)
    with writing.open_repo_work(target.repo) as work:
        ensure_room(vm, wish.drive, target)
        if target.parent:
            writing.pin(work, target.parent.revision.layers)
        layer = work.path / "layer"
        with SaverConnection(str(vm.directory / SAVE_SOCKET), vm.name) as link:
            if is_lasting(vm, wish.drive):
                copy_drive(vm, wish.drive, link, layer, wish.safe, progress, note)
                digest, left = None, link.finish(MERGE_SECONDS)
            else:
                take_snapshot(vm, link, wish.safe, progress, note)
                digest, left = copy_disk(vm, target, layer, progress, lambda: link.finish(MERGE_SECONDS))
        if left:
            note(
                f"the second layer of {vm.name}'s disk could not be merged yet; this is tried again every"
                f" {MERGE_AGAIN:.0f} s: {left}"
            )
        size = layer.stat().st_blocks * 512
        model = target.origin or target.parent
        one = writing.add_revision(
            work, target.name, layer, target.parent, digest=digest, new=target.new, progress=progress,
            description=target.origin.revision.description if target.origin else "",
            custom=model.revision.custom if model else {"source": name_source(vm, wish.drive)},
        )  # fmt: skip
    return Found(target.repo, one), size


def is_lasting(vm: SavedVm, drive: int) -> bool:
    """Tell whether a disk is a persistent drive, and not a layer upon an image."""
    return vm.facts.disks[drive].mmp is not None


def name_source(vm: SavedVm, drive: int) -> str:
    """Return what a new image says that its disk was made from."""
    owner = f"{vm.name} of job {vm.directory.parent.name}"
    return f"drive {drive}, {vm.disk(drive)}, of {owner}" if is_lasting(vm, drive) else owner


def ensure_savable(vm: SavedVm, wish: SaveOptions, note: Note) -> None:
    """Raise RequestError unless the VM has the drive, and has it alone."""
    count, drive = len(vm.facts.disks), wish.drive
    if drive >= count:
        raise RequestError(
            f"{vm.name} has no drive {drive}", f"its drives are 0 to {count - 1}" if count else "it has none"
        )
    shown = f"drive {drive} of {vm.name}, the persistent drive {vm.disk(drive)},"
    if vm.facts.disks[drive].mmp == "cluster":
        raise RequestError(f"{shown} is shared by VMs (mmp: cluster), and a save would miss what the others write",
                           "save it from a job in which one VM has it, with mmp: yes")  # fmt: skip
    if vm.facts.disks[drive].mmp == "no":
        note(
            f"{shown} is not protected (mmp: no): if another VM writes to it now, the saved image is useless"
        )


def choose_target(vm: SavedVm, wish: SaveOptions, every: Sequence[Repo], note: Note) -> Target:
    """Return where the save goes; RequestError when it cannot go there."""
    lasting, origin = is_lasting(vm, wish.drive), find_origin(vm, every)
    if wish.dest is not None:
        reference = references.parse_new_reference(wish.dest)
        repo = references.choose_repo(every, reference.repo)
        writing.ensure_new(repo, reference.name)
        if vm.facts.origin is None and not wish.full and not lasting:
            note(f"the image {vm.facts.image} is not in a repository, so all of the disk is saved")
        name, older = reference.name, None
    elif lasting:
        raise RequestError(
            f"drive {wish.drive} of {vm.name} is the persistent drive {vm.disk(wish.drive)}, which belongs to"
            " no image", "name the new image with -d NAME",
        )
    elif vm.facts.origin is None:
        raise RequestError(
            f"{vm.name} runs from the file {vm.facts.image}, which is not in a repository",
            "name the new image with -d NAME"
        )
    elif origin is None:
        raise RequestError(
            f"image {vm.facts.origin}, which {vm.name} runs from, has been deleted or replaced",
            "save it as a new image: -d NAME"
        )
    else:
        repo, name, older = origin.repo, origin.revision.name, origin
    if wish.full or lasting or vm.facts.origin is None:
        return Target(repo, name, None, older)
    parent = origin or find_layers(vm, every)
    writing.ensure_layers_left(parent)
    return Target(repo, name, parent, older)


def find_origin(vm: SavedVm, every: Sequence[Repo]) -> Found | None:
    """Return the revision that the VM runs from, None when there is none or it is another one by now."""
    if vm.facts.origin is None:
        return None
    try:
        found = images.find_image(references.parse_reference(vm.facts.origin), every)
    except RequestError:
        return None
    return found if found.revision.layers[-1] == Path(vm.facts.image or "").name else None


def find_layers(vm: SavedVm, every: Sequence[Repo]) -> Found:
    """Return the image that a VM runs from, from its layers: VMs keep these even when the image is deleted."""
    reference = references.parse_reference(vm.facts.origin or "")
    repo = references.choose_repo(every, reference.repo)
    layers: list[str] = []
    name: str | None = Path(vm.facts.image or "").name
    try:
        while name:
            layers.insert(0, name)
            backing = images.read_header(repository.layer_file(repo, name), "layer").backing_file
            name = Path(backing).name if backing and len(layers) < metadata.MAX_LAYERS else None
    except PcoccError:
        raise RequestError(
            f"image {reference}, which {vm.name} runs from, has been deleted, and its layers are gone from"
            f" repository {repo.name!r}", "save all of the disk: --full -d NAME",
        ) from None
    one = metadata.Revision(
        reference.name, reference.revision or 0, "vm", accounts.user_name(), 0, tuple(layers)
    )
    return Found(repo, one)


def ensure_room(vm: SavedVm, drive: int, target: Target) -> None:
    """Raise RequestError, before anything is done, when the repository cannot store what is to be saved."""
    try:
        needed = vm.disk(drive).stat().st_blocks * 512
    except OSError as error:
        raise NodeError(
            f"drive {drive} of {vm.name}, {vm.disk(drive)}, cannot be read: {error.strerror}"
        ) from None
    what = f"drive {drive} of {vm.name} holds" if is_lasting(vm, drive) else f"{vm.name} has written"
    ensure_free(what, needed, target.repo)


def ensure_free(what: str, needed: int, repo: Repo) -> None:
    """Raise RequestError when a repository has no room for `needed` bytes."""
    free = repository.read_free(repo)
    if needed > free:
        raise RequestError(
            f"{what} {needed >> 20} MiB, and repository {repo.name!r} has room for {free >> 20}",
            f"free space with 'pcocc image repo gc {repo.name}', or save to another: -d REPO:NAME",
        )


def take_snapshot(vm: SavedVm, link: SaverConnection, safe: bool, progress: Progress, note: Note) -> None:
    """Put a second layer upon the disk; the disk itself does not change any more from then on."""
    with on_scratch(vm):
        shown = open_second_layer(link, vm.disk(0), 0)
    progress("freezing the guest's file systems")(0, 0)
    with frozen(vm, link, safe, note):
        put_second_layer(link, shown)


def copy_disk(
    vm: SavedVm, target: Target, layer: Path, progress: Progress, then: Callable[[], _T]
) -> tuple[str | None, _T]:
    """Write the disk, unchanged until `then`, as a layer; return its sum, if known, and what `then` returned."""
    if target.parent is None:
        every = qemu_img.chain(vm.disk(0))
        ensure_free(
            f"the disk of {vm.name}, with all layers, holds", qemu_img.read_extent(every)[0], target.repo
        )
        qemu_img.convert(every, "qcow2", layer, progress("saving all of the disk"))
        return None, then()
    backing = metadata.backing_name(target.parent.revision.layers[-1])

    def name_backing(head: bytes) -> bytes:
        return qcow2.name_backing(head, backing, str(vm.disk(0)))

    return copy_layer(
        vm.disk(0), layer, name_backing, qcow2.HEADER_SIZE, progress("saving"), lambda: ensure_whole(layer),
        then
    )


def ensure_whole(layer: Path) -> None:
    """Raise NodeError when the tables of a layer that was just written are not right."""
    damage = qemu_img.find_damage(layer, "qcow2", layer.stat().st_size)
    if damage:
        raise NodeError(
            f"the layer that was saved is damaged: {damage}",
            "look into the node's kernel log for errors of its disk",
        )
