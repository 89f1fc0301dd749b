"""Verifying: each layer's content against the checksum in its name, its tables, and its backing file."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pcocc_runtime.errors import PcoccError, RequestError
from pcocc_runtime.images import images, qemu_img, repository
from pcocc_runtime.images.images import Found
from pcocc_runtime.progress import Progress
from pcocc_runtime.system import copy, regular


def verify_images(every: Sequence[Found], progress: Progress) -> list[PcoccError]:
    """Return what is wrong with the images, one error for each; a layer that several share is read once."""
    seen: dict[str, PcoccError | None] = {}
    problems: list[PcoccError] = []
    for found in every:
        closed = _find_closed(found)
        if closed:
            problems.append(closed)
            continue
        problem = _check_chain(found)
        for layer in found.revision.layers:
            place = os.path.realpath(repository.layer_file(found.repo, layer))
            if problem is None and place not in seen:
                seen[place] = _check_layer(found, layer, progress)
            problem = problem or seen.get(place)
        if problem and repository.has_revision(found.repo, found.revision):  # else it was deleted meanwhile
            prefix = f"image {found.reference} is damaged: "
            problems.append(RequestError(f"{prefix}{problem.message.removeprefix(prefix)}", _HINT))
    return problems


_HINT = "restore the file from a backup, or delete the image and import it again"


def _find_closed(found: Found) -> PcoccError | None:
    """Return the error of an image with a layer that the caller may not read, None when all can be read."""
    for layer in found.revision.layers:
        path = repository.layer_file(found.repo, layer)
        try:
            regular.open_regular(path).close()
        except PermissionError as error:
            text = (
                f"image {found.reference} cannot be verified: you may not read {path}: {error.strerror}"
            )
            return RequestError(text, f"see: ls -l {path}")
        except OSError:
            continue
    return None


def _check_chain(found: Found) -> PcoccError | None:
    try:
        if found.revision.kind == "vm":
            images.ensure_disk(found)
    except PcoccError as error:
        return error
    return None


def _check_layer(found: Found, layer: str, progress: Progress) -> PcoccError | None:
    path = repository.layer_file(found.repo, layer)
    try:
        size = path.stat().st_size
        total = copy.hash_file(path, progress(f"reading layer {layer[:12]} of {found.reference}"))
        if total != layer:
            return RequestError(
                f"the content of layer {path} does not match the checksum in its name: its sha256 is {total}"
            )
        damage = qemu_img.find_damage(path, "qcow2", size) if found.revision.kind == "vm" else None
    except OSError as error:
        return RequestError(f"layer {path} cannot be read: {error.strerror}")
    return RequestError(f"layer {path}: {damage}") if damage else None
