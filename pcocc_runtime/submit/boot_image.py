"""The image that VMs boot from: the template's or a typed one, which QEMU must be able to open."""

from __future__ import annotations

import os.path

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import folders, qcow2, references
from pcocc_runtime.submit.entry import Entry
from pcocc_runtime.submit.submission import Submission
from pcocc_runtime.system import user_files
from pcocc_runtime.templates.row import TemplateSetting
from pcocc_runtime.templates.template import Resolved

_MAX_CHAIN = 16


def add_typed_image(submission: Submission, row: TemplateSetting, entries: list[Entry]) -> list[Entry]:
    """Return the typed image, if there is one for this template or for all; else the template's, or none."""
    template, filling, (own,) = submission.part.template, submission.filling, entries
    typed = [image for name, image in submission.request.images if name in (None, template)]
    if typed:
        named = [image for name, image in submission.request.images if name == template]
        image = (named or typed)[-1]
        references.ensure_no_source(image)
        return [Entry(row.name, row, filling.typed(image) if "/" in image else image, is_typed=True)]
    if own.value is False or (own.value is None and _boots_without_image(filling.chosen)):
        return [own._replace(value=None)]
    if own.value is None:
        hint = "name one with --pcocc-image=NAME or --pcocc-image=/PATH/TO/DISK.qcow2"
        raise filling.wrong("image", f"template {template!r} has no image", hint)
    return entries


def _boots_without_image(chosen: Resolved) -> bool:
    return bool(chosen.values["persistent-drives"]) or chosen.values["kernel"] is not None


def look_at_image(submission: Submission, entry: Entry) -> tuple[str, str | None]:
    """Return the path of an image's disk, and for an image of a repository its full name."""
    image = entry.text
    if "/" not in image:
        return submission.caller.find_image(image)
    references.ensure_no_source(image)
    folders.refuse_directory(image)
    _check_image(image, image, 0)
    return image, None


def _check_image(path: str, top: str, depth: int) -> None:
    """Refuse an image that QEMU could not open, or that leads it to something else than local files."""
    if depth > _MAX_CHAIN:
        hint = (
            f"qemu-img info --backing-chain {top} lists them; qemu-img convert -O qcow2 {top} NEW.qcow2 makes"
            " one file"
        )
        raise RequestError(f"image {top} has more than {_MAX_CHAIN} backing files", hint)
    header = qcow2.parse_header(user_files.read_user_start(path, qcow2.HEADER_SIZE, "image"), path)
    if header.backing_file is not None:
        below = os.path.join(os.path.dirname(path), header.backing_file)
        if user_files.read_user_start(below, 4, f"the backing file of image {path},")[:4] == b"QFI\xfb":
            _check_image(below, top, depth + 1)
