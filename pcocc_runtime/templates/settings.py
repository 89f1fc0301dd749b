"""Templates of virtual machines: the keys of templates.yaml, inheritance, and what a template comes to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pcocc_runtime.errors import ConfigError, RequestError
from pcocc_runtime.settings import checks
from pcocc_runtime.settings.checks import Setting
from pcocc_runtime.settings.tree import Node

MAX_USER_DATA = 64 * 1024


@dataclass(frozen=True, slots=True)
class Template:
    """One template as a file defines it: only the settings it has, None for null."""

    name: str
    values: Mapping[str, Any]
    node: Node = field(repr=False, compare=False)
    is_site: bool = True
    is_image: bool = False  # no file defines it: it is the image of its name


@dataclass(frozen=True, slots=True)
class Resolved:
    """A template with everything inherited and defaulted; `sources` has the template that a setting came from."""

    template: Template
    values: Mapping[str, Any]
    sources: Mapping[str, Template]

    @property
    def origins(self) -> dict[str, str]:
        """Return the name of the template that each setting came from, where it is not the built-in default."""
        return {key: one.name for key, one in self.sources.items()}

    def error(self, key: str, message: str, hint: str | None = None, item: str | int | None = None) -> ConfigError:
        """Return the error that points to where a setting, or an item of it, is made, here or in what is inherited from."""
        node = self.sources.get(key, self.template).node
        place: Node = node.value.get(key, node) if isinstance(node.value, dict) else node
        if key == "persistent-drives" and isinstance(item, int):
            place = _drive_nodes(place)[item]
        elif isinstance(place.value, dict):
            place = place.value.get(item, place)
        elif isinstance(place.value, tuple) and isinstance(item, int):
            place = place.value[item]
        return place.error(message, hint)

    @contextlib.contextmanager
    def at(self, key: str, item: str | int | None = None) -> Iterator[None]:
        """Give what is refused in the block the place of the setting that asks for it."""
        try:
            yield
        except RequestError as error:
            if self.sources.get(key, self.template).is_image:
                raise  # it says which image, and no file has anything to mend
            raise self.error(key, error.message, error.hint, item) from error


def _path(node: Node) -> str:
    path = checks.text(node)
    if not path.startswith(("/", "~", "%{")):
        raise node.error(f"{path!r} is not an absolute path", "begin it with '/', '~/' or '%{homedir}/'")
    return path


def _image(node: Node) -> str | bool:
    if node.value is False:
        return False
    if node.value is True:
        raise checks.mismatch(node, "text or false", "write an image's name or path, or false for none")
    return checks.text(node)


_KERNEL = (
    Setting("path", _path, True),
    Setting("initrd", checks.optional(_path)),
    Setting("append", checks.optional(checks.prose)),
)


def _kernel(node: Node) -> dict[str, Any]:
    values = checks.record(_KERNEL)(node) if isinstance(node.value, dict) else {"path": _path(node)}
    return {"path": values["path"], "initrd": values.get("initrd"), "append": values.get("append")}


def _user_data(node: Node) -> Any:
    if isinstance(node.value, dict):
        if node.size > MAX_USER_DATA:
            raise node.error(f"is larger than {MAX_USER_DATA >> 10} KiB", "let it fetch the rest, for example from a web server")
        return node.plain()
    return _path(node)


_MOUNT = (
    Setting("path", _path, True),
    Setting("readonly", checks.boolean),
    Setting("type", checks.choice("9p", "virtio-9p", "virtiofs", "virtio-fs")),
)


def _mount(node: Node) -> dict[str, Any]:
    if isinstance(node.value, str):
        return {"path": _path(node), "readonly": False, "type": "9p"}
    values: dict[str, Any] = {"path": "", "readonly": False, "type": "9p", **checks.record(_MOUNT)(node)}
    return {**values, "type": {"virtio-9p": "9p", "virtio-fs": "virtiofs"}.get(values["type"], values["type"])}


def _mmp(node: Node) -> str:
    if isinstance(node.value, bool):
        return "yes" if node.value else "no"
    word: str = checks.choice("yes", "no", "cluster")(node)
    return word


_DRIVE = (
    Setting("cache", checks.choice("writeback", "writethrough", "none", "directsync", "unsafe")),
    Setting("mmp", _mmp),
    Setting("backup", checks.optional(checks.text)),  # pcocc 0.7's, and not looked at
    Setting("format", checks.choice("raw", "qcow2")),
)


def _drives(node: Node) -> tuple[dict[str, Any], ...]:
    if isinstance(node.value, tuple):
        return tuple(drive for drives in checks.gather(_item_drives, node.value) for drive in drives)
    return _item_drives(node)


def _item_drives(node: Node) -> tuple[dict[str, Any], ...]:
    if isinstance(node.value, dict):
        return tuple(checks.gather(_drive_with_options, node.value.items()))
    return (_drive(_path(node), {}),)


def _drive_with_options(item: tuple[str, Node]) -> dict[str, Any]:
    path, options = item
    if path in [setting.name for setting in _DRIVE]:
        raise options.error("belongs to no drive", f"indent it deeper than the drive's path, or write - /PATH: {{{path}: ...}}")
    return _drive(_path(_key(path, options)), checks.optional(checks.record(_DRIVE))(options) or {})


def _drive_nodes(node: Node) -> list[Node]:
    """Return where each drive is named, in their order."""
    if isinstance(node.value, tuple):
        return [found for item in node.value for found in _drive_nodes(item)]
    return list(node.value.values()) if isinstance(node.value, dict) else [node]


def _key(text: str, value: Node) -> Node:
    """Return the key of a mapping as a value of its own."""
    return Node(text, value.file, value.line, value.path, text)


def _drive(path: str, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"path": path, "cache": "writeback", "mmp": "yes", "backup": None, "format": "raw", **options}


TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}"  # the 9p mount tag and virtiofs tag have at most 31 and 36 bytes
USER = r"[A-Za-z_][A-Za-z0-9_.-]{0,31}"  # as useradd makes them in images


def _mounts(node: Node) -> dict[str, Any]:
    if isinstance(node.value, dict):
        for tag, child in node.value.items():
            checks.pattern(TAG, "a mount tag of at most 31 letters, digits, '_', '.', '-'")(_key(tag, child))
    mounts: dict[str, Any] = checks.mapping_of(_mount)(node)
    return mounts


# options of -machine that read or write files of the host: what boots is for the settings of that name, which a site can limit
_NOT_IN_MACHINE = {"kernel": "kernel", "initrd": "kernel", "append": "kernel", "shim": "kernel", "firmware": "firmware",
                   "dtb": "custom-args", "dumpdtb": "custom-args"}  # fmt: skip


def _machine(node: Node) -> str:
    machine: str = checks.pattern(r"[A-Za-z0-9._=,-]{1,128}", "a QEMU machine type")(node)
    for word in machine.split(","):
        name = word.partition("=")[0]
        if name in _NOT_IN_MACHINE:
            raise node.error(f"{name!r} cannot be set in a machine type", f"use the setting {_NOT_IN_MACHINE[name]!r}")
    return machine


_CHECKS: dict[str, tuple[checks.Check, Any]] = {
    "image": (_image, None),
    "resource-set": (checks.text, None),
    "inherits": (checks.text, None),
    "description": (checks.prose, ""),
    "cpus": (checks.integer(1, 4096), 1),
    "memory": (checks.memory, 0),
    "user-data": (_user_data, None),
    "instance-id": (checks.pattern(r"\S{1,128}", "a word"), None),
    "mount-points": (_mounts, {}),
    "persistent-drives": (_drives, ()),
    "remote-display": (checks.choice("vnc", "spice"), None),
    "custom-args": (checks.list_of(checks.prose), ()),
    "qemu-bin": (_path, None),
    "kernel": (_kernel, None),
    "nic-model": (checks.pattern(r"[A-Za-z0-9._-]{1,64}", "a QEMU device name"), "virtio-net-pci"),
    "machine-type": (_machine, "q35"),
    "cpu-model": (checks.pattern(r"[A-Za-z0-9._=,+-]{1,256}", "a QEMU CPU model"), None),
    "disk-model": (checks.choice("virtio", "virtio-scsi", "ide"), "virtio"),
    "disk-cache": (checks.choice("writeback", "writethrough", "none", "directsync", "unsafe"), "unsafe"),
    "emulator-cores": (checks.integer(0, 4096), 0),
    "bind-vcpus": (checks.boolean, True),
    "full-node": (checks.boolean, False),
    "firmware": (checks.choice("bios", "uefi"), "bios"),
    "command-user": (checks.pattern(USER, "a user name"), None),
}
TABLE = tuple(Setting(name, checks.optional(check)) for name, (check, _default) in _CHECKS.items())
DEFAULTS: Mapping[str, Any] = {name: default for name, (_check, default) in _CHECKS.items()}
NOT_INHERITED = frozenset({"description", "inherits"})
