"""Directories of the host that a running VM is given, in QEMU's words (docs/interop/qemu-qmp-ref).

Each is a device, and the connection to the virtiofsd that serves it. Tag and path are kept by QEMU beside a descriptor
that nobody uses, as those of drives are (hot_drives.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from pcocc_runtime.documents.cluster import Mount
from pcocc_runtime.errors import RequestError
from pcocc_runtime.qemu.hot_names import is_directory, set_of_directory

_FORM = "write TAG=PATH, or TAG=PATH,readonly"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}"  # as of a mount that is planned (templates/values.py)
_OPAQUE = "pcocc directory "
_BOOTED = re.compile(r"(virtio-9p-pci|vhost-user-fs-pci),(?:.*,)?(?:mount_)?tag=([^,]+)")
_KINDS = {"virtio-9p-pci": "9p", "vhost-user-fs-pci": "virtiofs"}


class GivenDirectory(NamedTuple):
    """QEMU's name of a directory that a running VM was given; its mount, if known; whether QEMU has its device."""

    name: str
    mount: Mount | None
    has_device: bool


def parse_directory(text: str) -> Mount:
    """Return the mount of a word TAG=PATH[,readonly]; options are taken from its end: a path may contain commas."""
    tag, equals, path = text.partition("=")
    if not equals or not re.fullmatch(_TAG, tag):
        what = "a tag of at most 31 letters, digits, '_', '.', '-', and '='"
        raise RequestError(f"{text[:200]!r} does not begin with {what}", _FORM)
    options = set[str]()
    while found := re.fullmatch(r"(.*),(readonly|type=[^,/]*)", path, re.DOTALL):
        path, option = found.groups()
        if option.startswith("type=") and option != "type=virtiofs":
            raise RequestError(f"{text[:200]!r}: a running VM can be given a directory over virtiofs only", _FORM)
        if option in options:
            raise RequestError(f"{text[:200]!r} has {option} twice", _FORM)
        options.add(option)
    if not path or path.startswith(","):
        raise RequestError(f"{text[:200]!r} names no directory", _FORM)
    return Mount(tag, path, "virtiofs", "readonly" in options)


def render_directory(mount: Mount) -> str:
    """Return the word of a mount."""
    return f"{mount.tag}={mount.path}{',readonly' if mount.readonly else ''}"


def ensure_tag(text: str) -> str:
    """Return a text that can be a tag; RequestError for any other."""
    if not re.fullmatch(_TAG, text):
        raise RequestError(f"{text[:80]!r} is not the tag of a directory", "'pcocc mount list VMS' shows the tags")
    return text


def plan_directory_set(name: str, mount: Mount) -> dict[str, Any]:
    """Return the arguments of add-fd."""
    return {"fdset-id": set_of_directory(name), "opaque": f"{_OPAQUE}{render_directory(mount)}"}


def plan_channel(name: str, file: str) -> dict[str, Any]:
    """Return the arguments of chardev-add; `file` is the name of a descriptor that QEMU was given (getfd)."""
    data = {"addr": {"type": "fd", "data": {"str": file}}, "server": False}
    return {"id": name, "backend": {"type": "socket", "data": data}}


def plan_directory_device(name: str, tag: str, bus: str) -> dict[str, Any]:
    """Return the arguments of device_add."""
    return {"driver": "vhost-user-fs-pci", "id": name, "chardev": name, "tag": tag, "bus": bus}


def find_directories(
    sets: Iterable[dict[str, Any]], chardevs: Iterable[dict[str, Any]], devices: Collection[str]
) -> tuple[GivenDirectory, ...]:
    """Return the directories, from what query-fdsets and query-chardev say, and the names of all devices."""
    known: dict[int, Mount] = {}
    for one in sets:
        opaque = next((str(fd["opaque"]) for fd in one.get("fds", ()) if "opaque" in fd), "")
        if opaque.startswith(_OPAQUE):
            known[int(one["fdset-id"])] = parse_directory(opaque.removeprefix(_OPAQUE))
    named = {str(one.get("label")) for one in chardevs} | {*devices}
    named |= {name for number in known if (name := f"dir{number - set_of_directory('dir0')}")}
    found = (name for name in named if is_directory(name))
    return tuple(
        GivenDirectory(name, known.get(set_of_directory(name)), name in devices)
        for name in sorted(found, key=set_of_directory)
    )


def next_directory(given: Sequence[GivenDirectory]) -> str:
    """Return the name of the next directory of a VM."""
    taken = {one.name for one in given}
    return next(name for number in range(len(taken) + 1) if (name := f"dir{number}") not in taken)


def find_booted(argv: Iterable[str]) -> dict[str, str]:
    """Return the tags of the directories that a VM has had since its boot, from its QEMU's words, with their types."""
    return {found[2]: _KINDS[found[1]] for word in argv if (found := _BOOTED.match(word))}
