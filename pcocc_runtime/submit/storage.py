"""Directories and disk images of the host that VMs get: chosen and checked when the job is submitted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pcocc_runtime.documents.cluster import Drive, Group, Mount
from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import qcow2
from pcocc_runtime.qemu.slots import MOST_MOUNTS
from pcocc_runtime.settings import checks
from pcocc_runtime.site.limits import Limits, find_refused, is_below
from pcocc_runtime.system import user_files
from pcocc_runtime.templates.fill import Filling


def choose_mounts(filling: Filling, typed: tuple[Mount, ...], allowed: Limits) -> tuple[Mount, ...]:
    """Return the template's mounts and the command's, which win over one with the same tag."""
    key = "mount-points"
    own, by_tag = filling.chosen.values[key], {mount.tag: mount for mount in typed}
    if len(own | by_tag) > MOST_MOUNTS:
        message, hint = f"{len(own | by_tag)} directories are too many for a VM, which can have {MOST_MOUNTS}", "export one above them"
        raise RequestError(message, hint) if len(own) <= MOST_MOUNTS else filling.wrong(key, message, hint)

    def choose(tag: str) -> Mount:
        if tag in by_tag:
            return _choose_typed(by_tag[tag], filling, allowed)
        mount = Mount(tag, filling.path(key, own[tag]["path"], tag), own[tag]["type"], own[tag]["readonly"])
        with filling.chosen.at(key, tag):
            _ensure_mountable(mount, filling, allowed if _is_users(filling, key) else Limits())
        return mount

    return tuple(checks.gather(choose, own | by_tag))


def _choose_typed(typed: Mount, filling: Filling, allowed: Limits) -> Mount:
    mount = replace(typed, path=filling.typed(typed.path))
    try:
        _ensure_mountable(mount, filling, allowed)
    except RequestError as error:
        _path, comma, option = mount.path.rpartition(",")
        if comma and "/" not in option and not user_files.exists(mount.path):
            error.hint = f"if {option!r} is to be an option: there are type=9p, type=virtiofs and readonly"
        raise
    return mount


def _ensure_mountable(mount: Mount, filling: Filling, allowed: Limits) -> None:
    user_files.ensure_directory_readable(mount.path, f"mount {mount.tag!r}: directory")
    _ensure_allowed(mount.path, f"mount {mount.tag!r}: directory {mount.path}", filling, allowed)


def choose_drives(filling: Filling, allowed: Limits) -> tuple[Drive, ...]:
    """Return the template's persistent drives, each of them a file that the user can write."""
    key = "persistent-drives"
    seen: dict[str, str] = {}

    def choose(item: tuple[int, dict[str, Any]]) -> Drive:
        index, one = item
        drive = Drive(**{**one, "path": filling.path(key, one["path"], index)})
        with filling.chosen.at(key, index):
            _check_drive(drive)
            _refuse_again(drive.path, seen)
            if _is_users(filling, key):
                _ensure_allowed(drive.path, f"drive {drive.path}", filling, allowed)
        return drive

    return tuple(checks.gather(choose, enumerate(filling.chosen.values[key])))


def _refuse_again(path: str, seen: dict[str, str]) -> None:
    """Raise RequestError when a VM has this file as a drive already; `seen` has what named each by its real path."""
    real = user_files.real_path(path)
    if real in seen:
        same = "" if seen[real] == path else f", which is {seen[real]},"
        raise RequestError(f"a VM would have the drive {path}{same} twice", "name each drive once")
    seen[real] = path


def _check_drive(drive: Drive) -> None:
    head = user_files.read_start(drive.path, qcow2.HEADER_SIZE, "drive")
    user_files.ensure_writable(drive.path, "drive")
    if drive.format == "qcow2":
        qcow2.parse_header(head, drive.path)
    elif head[:4] == qcow2.MAGIC:
        raise RequestError(f"drive {drive.path} is a qcow2 file, and would be used as a raw one",
                           "say 'format: qcow2' under its path in the template")
    if drive.mmp == "cluster" and drive.format != "raw":
        raise RequestError(f"{drive.path} is {drive.format}, which several VMs cannot write at once",
                           "with 'mmp: cluster' a drive must be raw")


def refuse_double_use(groups: Iterable[Group]) -> None:
    """Raise RequestError when VMs of one cluster need the same drive for themselves alone."""
    users: dict[str, list[tuple[str, Drive]]] = {}
    for group in groups:
        for drive in group.persistent:
            users.setdefault(user_files.real_path(drive.path), []).extend([(group.template, drive)] * group.count)
    for uses in users.values():
        if len(uses) > 1 and any(drive.mmp == "yes" for _template, drive in uses):
            template, first = uses[0]
            raise RequestError(f"{len(uses)} VMs would write the drive {first.path} of template {template!r}, which allows one",
                               "give each VM its own with %{vm_rank} in the path, or ask for one VM; 'mmp: cluster' lets several in")


def ensure_word_allowed(
    filling: Filling, key: str, word: str, patterns: tuple[str, ...] | None, item: str | int | None = None
) -> None:
    """Raise ConfigError when a user's template has a word in `key`, or an item of it, that the site does not let users set."""
    if patterns is not None and _is_users(filling, key):
        _ensure_match(filling, key, word, patterns, [filling.words_in(pattern) for pattern in patterns], item)


def ensure_path_allowed(
    filling: Filling, key: str, path: str, patterns: tuple[str, ...] | None, item: str | int | None = None
) -> None:
    """Do the same with a path: what counts is where it really leads."""
    if patterns is not None and _is_users(filling, key):
        real = [user_files.real_path(filling.words_in(pattern)) for pattern in patterns]
        _ensure_match(filling, key, user_files.real_path(path), patterns, real, item)


def _ensure_match(
    filling: Filling, key: str, text: str, shown: tuple[str, ...], patterns: list[str], item: str | int | None
) -> None:
    if find_refused([text], patterns) is not None:
        raise filling.wrong(key, f"this site does not let users set {text!r} here", _hint(shown), item)


def _ensure_allowed(path: str, what: str, filling: Filling, allowed: Limits) -> None:
    """A link must not lead elsewhere: what counts is where the path really is."""
    if allowed.host_paths is None:
        return
    patterns = [user_files.real_path(filling.words_in(pattern)) for pattern in allowed.host_paths]
    if not is_below(user_files.real_path(path), patterns):
        raise RequestError(f"{what} is not one that users of this site may give to VMs", _hint(allowed.host_paths))


def _is_users(filling: Filling, key: str) -> bool:
    source = filling.chosen.sources.get(key)
    return source is not None and not source.is_site


def _hint(patterns: tuple[str, ...]) -> str:
    return f"allowed: {', '.join(patterns) or 'nothing'}"
