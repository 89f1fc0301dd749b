"""Directories and disk images of the host that VMs get: chosen and checked when the job is submitted."""

from __future__ import annotations

from collections.abc import Iterable

from pcocc_runtime import limits, qcow2
from pcocc_runtime.document import Drive, Group, Mount
from pcocc_runtime.errors import RequestError
from pcocc_runtime.filling import Filling
from pcocc_runtime.limits import Limits
from pcocc_runtime.system import userfiles


def choose_mounts(filling: Filling, typed: tuple[Mount, ...], allowed: Limits) -> tuple[Mount, ...]:
    """Return the template's mounts and the command's, which win over one with the same tag."""
    chosen = filling.chosen
    mounts = {
        tag: Mount(tag, filling.path("mount-points", one["path"]), one["type"], one["readonly"])
        for tag, one in chosen.values["mount-points"].items()
    }
    mounts |= {mount.tag: Mount(mount.tag, filling.typed(mount.path), mount.type, mount.readonly) for mount in typed}
    by_user = {mount.tag for mount in typed} | (set(mounts) if _is_users(filling, "mount-points") else set())
    for mount in mounts.values():
        userfiles.ensure_directory_readable(mount.path, f"mount {mount.tag!r}: directory")
        if mount.tag in by_user:
            _ensure_allowed(mount.path, f"mount {mount.tag!r}: directory {mount.path}", filling, allowed)
    return tuple(mounts.values())


def choose_drives(filling: Filling, allowed: Limits) -> tuple[Drive, ...]:
    """Return the template's persistent drives, each of them a file that the user can write."""
    key = "persistent-drives"
    drives = tuple(
        Drive(**{**one, "path": filling.path(key, one["path"]), "backup": one["backup"] and filling.path(key, one["backup"])})
        for one in filling.chosen.values[key]
    )
    for drive in drives:
        _check_drive(drive)
        if drive.mmp == "cluster" and drive.format != "raw":
            raise filling.wrong(key, f"{drive.path} is {drive.format}, which several VMs cannot write at once",
                                "with 'mmp: cluster' a drive must be raw")
        if _is_users(filling, key):
            _ensure_allowed(drive.path, f"drive {drive.path}", filling, allowed)
    return drives


def _check_drive(drive: Drive) -> None:
    head = userfiles.read_start(drive.path, qcow2.HEAD_SIZE, "drive")
    userfiles.ensure_writable(drive.path, "drive")
    if drive.format == "qcow2":
        qcow2.parse_header(head, drive.path)
    elif head[:4] == qcow2.MAGIC:
        raise RequestError(f"drive {drive.path} is a qcow2 file, and would be used as a raw one",
                           "say 'format: qcow2' under its path in the template")


def refuse_double_use(groups: Iterable[Group]) -> None:
    """Raise RequestError when VMs of one cluster need the same drive for themselves alone."""
    users: dict[str, list[tuple[str, Drive]]] = {}
    for group in groups:
        for drive in group.persistent:
            users.setdefault(drive.path, []).extend([(group.template, drive)] * group.count)
    for path, uses in users.items():
        if len(uses) > 1 and any(drive.mmp == "yes" for _template, drive in uses):
            raise RequestError(f"{len(uses)} VMs would write the drive {path} of template {uses[0][0]!r}, which allows one",
                               "give each VM its own with %{vm_rank} in the path, or ask for one VM; 'mmp: cluster' lets several in")


def ensure_words_allowed(filling: Filling, key: str, words: Iterable[str], patterns: tuple[str, ...] | None) -> None:
    """Raise ConfigError when a user's template has words in `key` that the site does not let users set."""
    if patterns is not None and _is_users(filling, key):
        _ensure_match(filling, key, words, patterns, [filling.words_in(pattern) for pattern in patterns])


def ensure_paths_allowed(filling: Filling, key: str, paths: Iterable[str], patterns: tuple[str, ...] | None) -> None:
    """Do the same with paths: what counts is where they really lead."""
    if patterns is not None and _is_users(filling, key):
        real = [userfiles.real_path(filling.words_in(pattern)) for pattern in patterns]
        _ensure_match(filling, key, map(userfiles.real_path, paths), patterns, real)


def _ensure_match(filling: Filling, key: str, texts: Iterable[str], shown: tuple[str, ...], patterns: list[str]) -> None:
    refused = limits.find_refused(texts, patterns)
    if refused is not None:
        raise filling.wrong(key, f"this site does not let users set {refused!r} here", _hint(shown))


def _ensure_allowed(path: str, what: str, filling: Filling, allowed: Limits) -> None:
    """A link must not lead elsewhere: what counts is where the path really is."""
    if allowed.host_paths is None:
        return
    patterns = [userfiles.real_path(filling.words_in(pattern)) for pattern in allowed.host_paths]
    if not limits.is_below(userfiles.real_path(path), patterns):
        raise RequestError(f"{what} is not one that users of this site may give to VMs", _hint(allowed.host_paths))


def _is_users(filling: Filling, key: str) -> bool:
    source = filling.chosen.sources.get(key)
    return source is not None and not source.is_site


def _hint(patterns: tuple[str, ...]) -> str:
    return f"allowed: {', '.join(patterns) or 'nothing'}"
