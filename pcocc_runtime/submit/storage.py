"""Directories and disk images of the host that VMs get, looked at when the job is submitted."""

from __future__ import annotations

from collections.abc import Iterable

from pcocc_runtime.documents.cluster import ARRAY_TASK, Drive, Group, Mount
from pcocc_runtime.errors import RequestError
from pcocc_runtime.images.drives import ensure_drive
from pcocc_runtime.qemu.slots import MOST_MOUNTS
from pcocc_runtime.submit.entry import Entry
from pcocc_runtime.submit.submission import Submission
from pcocc_runtime.system import user_files
from pcocc_runtime.templates.row import TemplateSetting


def add_typed_mounts(submission: Submission, row: TemplateSetting, entries: list[Entry]) -> list[Entry]:
    """Return the template's mounts and those of the command line, which replace the template's of the same tag."""
    filling, by_tag = submission.filling, {str(entry.item): entry for entry in entries}
    for one in submission.request.mounts:
        value = {"path": filling.typed(one.path), "readonly": one.readonly, "type": one.type}
        by_tag[one.tag] = Entry(row.name, row, value, one.tag, is_typed=True)
    if len(by_tag) > MOST_MOUNTS:
        message = f"{len(by_tag)} directories are too many for a VM, which can have {MOST_MOUNTS}"
        hint = "export a directory above them instead"
        if len(entries) > MOST_MOUNTS:
            raise filling.wrong(row.name, message, hint)
        raise RequestError(message, hint)
    return list(by_tag.values())


def look_at_directory(_submission: Submission, entry: Entry) -> Mount:
    """Return the mount of a directory, which the user must be able to read."""
    mount = Mount(str(entry.item), **entry.value)
    known = mount.path
    if entry.is_typed and ARRAY_TASK in known and not user_files.exists(known):
        known = known.partition(ARRAY_TASK)[0].rpartition("/")[0] or "/"  # each array task's own may be made later
    try:
        user_files.ensure_directory_readable(known, entry.noun)
    except RequestError as error:
        _path, comma, option = mount.path.rpartition(",")
        if entry.is_typed and comma and "/" not in option and not user_files.exists(mount.path):
            error.hint = f"if {option!r} is meant as an option: there are type=9p, type=virtiofs and readonly"
        raise
    return mount


def look_at_drive(submission: Submission, entry: Entry) -> Drive:
    """Return a drive: a file that the user can write, and that this VM does not have already."""
    drive = Drive(**entry.value)
    ensure_drive(drive)
    _refuse_again(drive.path, submission.drives)
    return drive


def _refuse_again(path: str, seen: dict[str, str]) -> None:
    """Raise RequestError when a VM has this file as a drive already; `seen` has its drives by their real path."""
    real = user_files.real_path(path)
    if real in seen:
        fault = "listed twice" if seen[real] == path else f"the same file as drive {seen[real]}"
        raise RequestError(f"drive {path} is {fault}", "list each drive once")
    seen[real] = path


def refuse_double_use(groups: Iterable[Group]) -> None:
    """Raise RequestError when several VMs of a cluster have a drive that only one of them may write."""
    users: dict[str, list[tuple[str, Drive]]] = {}
    for group in groups:
        for drive in group.persistent:
            uses = users.setdefault(user_files.real_path(drive.path), [])
            uses += [(group.template, drive)] * group.count
    for uses in users.values():
        if len(uses) > 1 and any(drive.mmp == "yes" for _template, drive in uses):
            template, first = uses[0]
            raise RequestError(
                f"{len(uses)} VMs would write the drive {first.path} of template {template!r}, but only one"
                " VM may",
                "give each VM its own drive with %{vm_rank} in the path, or ask for one VM; 'mmp: cluster'"
                " lets several in",
            )
