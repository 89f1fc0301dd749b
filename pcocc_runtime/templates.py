"""Templates of virtual machines: the keys of templates.yaml, inheritance, and what a template comes to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pcocc_runtime import schema
from pcocc_runtime.errors import ConfigError, PcoccError, RequestError
from pcocc_runtime.qemu_disks import most_disks
from pcocc_runtime.schema import Problems, Setting
from pcocc_runtime.yamlfile import Node

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
    path = schema.text(node)
    if not path.startswith(("/", "~", "%{")):
        raise node.error(f"{path!r} is not an absolute path", "begin it with '/', '~/' or '%{homedir}/'")
    return path


def _image(node: Node) -> str | bool:
    if node.value is False:
        return False
    if node.value is True:
        raise schema.mismatch(node, "text or false", "write an image's name or path, or false for none")
    return schema.text(node)


_KERNEL = (
    Setting("path", _path, True),
    Setting("initrd", schema.optional(_path)),
    Setting("append", schema.optional(schema.prose)),
)


def _kernel(node: Node) -> dict[str, Any]:
    values = schema.record(_KERNEL)(node) if isinstance(node.value, dict) else {"path": _path(node)}
    return {"path": values["path"], "initrd": values.get("initrd"), "append": values.get("append")}


def _user_data(node: Node) -> Any:
    if isinstance(node.value, dict):
        if node.size > MAX_USER_DATA:
            raise node.error(f"is larger than {MAX_USER_DATA >> 10} KiB", "let it fetch the rest, for example from a web server")
        return node.plain()
    return _path(node)


_MOUNT = (
    Setting("path", _path, True),
    Setting("readonly", schema.boolean),
    Setting("type", schema.choice("9p", "virtio-9p", "virtiofs", "virtio-fs")),
)


def _mount(node: Node) -> dict[str, Any]:
    if isinstance(node.value, str):
        return {"path": _path(node), "readonly": False, "type": "9p"}
    values: dict[str, Any] = {"path": "", "readonly": False, "type": "9p", **schema.record(_MOUNT)(node)}
    return {**values, "type": {"virtio-9p": "9p", "virtio-fs": "virtiofs"}.get(values["type"], values["type"])}


def _mmp(node: Node) -> str:
    if isinstance(node.value, bool):
        return "yes" if node.value else "no"
    word: str = schema.choice("yes", "no", "cluster")(node)
    return word


_DRIVE = (
    Setting("cache", schema.choice("writeback", "writethrough", "none", "directsync", "unsafe")),
    Setting("mmp", _mmp),
    Setting("backup", schema.optional(schema.text)),  # pcocc 0.7's, and not looked at
    Setting("format", schema.choice("raw", "qcow2")),
)


def _drives(node: Node) -> tuple[dict[str, Any], ...]:
    if isinstance(node.value, tuple):
        return tuple(drive for drives in schema.gather(_item_drives, node.value) for drive in drives)
    return _item_drives(node)


def _item_drives(node: Node) -> tuple[dict[str, Any], ...]:
    if isinstance(node.value, dict):
        return tuple(schema.gather(_drive_with_options, node.value.items()))
    return (_drive(_path(node), {}),)


def _drive_with_options(item: tuple[str, Node]) -> dict[str, Any]:
    path, options = item
    if path in [setting.name for setting in _DRIVE]:
        raise options.error("belongs to no drive", f"indent it deeper than the drive's path, or write - /PATH: {{{path}: ...}}")
    return _drive(_path(_key(path, options)), schema.optional(schema.record(_DRIVE))(options) or {})


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
            schema.pattern(TAG, "a mount tag of at most 31 letters, digits, '_', '.', '-'")(_key(tag, child))
    mounts: dict[str, Any] = schema.mapping_of(_mount)(node)
    return mounts


# options of -machine that read or write files of the host: what boots is for the settings of that name, which a site can limit
_NOT_IN_MACHINE = {"kernel": "kernel", "initrd": "kernel", "append": "kernel", "shim": "kernel", "firmware": "firmware",
                   "dtb": "custom-args", "dumpdtb": "custom-args"}  # fmt: skip


def _machine(node: Node) -> str:
    machine: str = schema.pattern(r"[A-Za-z0-9._=,-]{1,128}", "a QEMU machine type")(node)
    for word in machine.split(","):
        name = word.partition("=")[0]
        if name in _NOT_IN_MACHINE:
            raise node.error(f"{name!r} cannot be set in a machine type", f"use the setting {_NOT_IN_MACHINE[name]!r}")
    return machine


_CHECKS: dict[str, tuple[schema.Check, Any]] = {
    "image": (_image, None),
    "resource-set": (schema.text, None),
    "inherits": (schema.text, None),
    "description": (schema.prose, ""),
    "cpus": (schema.integer(1, 4096), 1),
    "memory": (schema.memory, 0),
    "user-data": (_user_data, None),
    "instance-id": (schema.pattern(r"\S{1,128}", "a word"), None),
    "mount-points": (_mounts, {}),
    "persistent-drives": (_drives, ()),
    "remote-display": (schema.choice("vnc", "spice"), None),
    "custom-args": (schema.list_of(schema.prose), ()),
    "qemu-bin": (_path, None),
    "kernel": (_kernel, None),
    "nic-model": (schema.pattern(r"[A-Za-z0-9._-]{1,64}", "a QEMU device name"), "virtio-net-pci"),
    "machine-type": (_machine, "q35"),
    "cpu-model": (schema.pattern(r"[A-Za-z0-9._=,+-]{1,256}", "a QEMU CPU model"), None),
    "disk-model": (schema.choice("virtio", "virtio-scsi", "ide"), "virtio"),
    "disk-cache": (schema.choice("writeback", "writethrough", "none", "directsync", "unsafe"), "unsafe"),
    "emulator-cores": (schema.integer(0, 4096), 0),
    "bind-vcpus": (schema.boolean, True),
    "full-node": (schema.boolean, False),
    "firmware": (schema.choice("bios", "uefi"), "bios"),
    "command-user": (schema.pattern(USER, "a user name"), None),
}
TABLE = tuple(Setting(name, schema.optional(check)) for name, (check, _default) in _CHECKS.items())
DEFAULTS: Mapping[str, Any] = {name: default for name, (_check, default) in _CHECKS.items()}
NOT_INHERITED = frozenset({"description", "inherits"})


def parse_templates(tree: Node, is_site: bool, problems: Problems) -> dict[str, Template]:
    """Return the templates of one file by name."""
    found: dict[str, Template] = {}
    for name, node in schema.read_names(tree, "template", problems).items():
        if node.value is None:
            node = Node({}, node.file, node.line, node.path)
        found[name] = Template(name, schema.read_mapping(node, TABLE, problems), node, is_site)
    return found


def merge(files: Sequence[Mapping[str, Template]], problems: Problems) -> dict[str, Template]:
    """Return the templates of all files, site's first; one name in two files is a problem and the first stays."""
    merged: dict[str, Template] = {}
    for templates in files:
        for name, one in templates.items():
            first = merged.setdefault(name, one)
            if first is not one:
                problems.append(_taken(one, first))
    return merged


def _taken(second: Template, first: Template) -> ConfigError:
    owner = "the site has" if first.is_site and not second.is_site else "there is"
    return second.node.error(
        f"{owner} a template of this name in {first.node.file}:{first.node.line}",
        f"give yours another name, and let it have 'inherits: {first.name}' if it should extend that one",
    )


def with_images(templates: Mapping[str, Template], images: Mapping[str, str]) -> dict[str, Template]:
    """Return the templates and one for each image that none of them shadows; `images` has the repositories by image."""
    made = {
        name: Template(name, {"image": name}, Node({}, f"image {repository}:{name}", 0, ""), False, True)
        for name, repository in images.items()
        if name not in templates and schema.is_name(name)
    }
    return {**templates, **made}


def resolve(templates: Mapping[str, Template], name: str, default_set: str | None = None) -> Resolved:
    """Return what template `name` comes to; RequestError when unknown, ConfigError when its parents are wrong."""
    ensure_known(templates, name)
    problems: Problems = []
    found = resolve_known(templates, name, default_set, problems)
    schema.raise_problems(problems)
    return found


def resolve_known(templates: Mapping[str, Template], name: str, default_set: str | None, problems: Problems) -> Resolved:
    """Return what a template comes to as far as its parents are known; what is wrong with them is added to `problems`."""
    values: dict[str, Any] = {**DEFAULTS, "resource-set": default_set}
    sources: dict[str, Template] = {}
    for one in reversed(_lineage(templates, templates[name], problems)):
        for key, value in one.values.items():
            if one.name == name or key not in NOT_INHERITED:
                fallback = default_set if key == "resource-set" else DEFAULTS[key]
                values[key] = fallback if value is None else value
                sources[key] = one
    return Resolved(templates[name], values, sources)


def find_own(problems: Sequence[ConfigError], name: str, every: Mapping[str, Template]) -> list[ConfigError]:
    """Return the problems of a template and of those it inherits from, and those of whole files."""
    names: list[str] = []
    while name in every and name not in names:
        names.append(name)
        name = every[name].values.get("inherits") or ""
    return [one for one in problems if one.key is None or any(one.key == n or one.key.startswith(f"{n}.") for n in names)]


def check_sizes(chosen: Resolved) -> None:
    """Raise ConfigError when a template asks for more than its own CPUs or its disk controller have."""
    values, problems = chosen.values, list[ConfigError]()
    cores, cpus = values["emulator-cores"], values["cpus"]
    if cores and cores >= cpus and not values["full-node"]:
        message, hint = f"{cores} of {cpus} CPUs for QEMU leave the guest none", f"set cpus to {cores + 1} or more"
        problems.append(chosen.error("emulator-cores", message, hint))
    most = most_disks(values["disk-model"], values["machine-type"])
    if len(values["persistent-drives"]) >= most:
        message = f"a VM with disk-model {values['disk-model']} can have {most} disks, its boot disk among them"
        problems.append(chosen.error("persistent-drives", message, "leave some out, or choose disk-model virtio"))
    schema.raise_problems(problems)


def _lineage(templates: Mapping[str, Template], one: Template, problems: Problems) -> list[Template]:
    """Return the template, its parent, its parent's parent, and so on up to one that is wrong, which is added to `problems`."""
    line, names = [one], {one.name}
    while (parent := line[-1].values.get("inherits")) is not None:
        problem = _find_obstacle(templates, line, parent, parent in names)
        if problem:
            problems.append(problem)
            break
        line.append(templates[parent])
        names.add(parent)
    return line


def _find_obstacle(templates: Mapping[str, Template], line: list[Template], parent: str, known: bool) -> ConfigError | None:
    """Return why the last of a line cannot inherit from a parent, who is one of the line when `known`."""
    place: Node = line[-1].node.value["inherits"]
    if parent not in templates:
        return place.error(f"there is no template {parent!r} to inherit from", known_names(templates))
    if templates[parent].is_image:
        return place.error(f"{parent!r} is an image, not a template", f"write image: {parent}")
    if known:
        return _circle(line[[one.name for one in line].index(parent) :])
    if line[-1].is_site and not templates[parent].is_site:
        return place.error(f"a site template cannot inherit from {parent!r}, which is a user's")
    return None


def _circle(members: list[Template]) -> ConfigError:
    """Return the error about templates that inherit each from the next; it is the same whichever of them is asked for."""
    first = members.index(min(members, key=lambda one: one.name))
    members = members[first:] + members[:first]
    names = " -> ".join(one.name for one in [*members, members[0]])
    place: Node = members[-1].node.value["inherits"]
    return place.error(f"templates inherit from each other in a circle: {names}")


def ensure_known(templates: Mapping[str, Template], name: str, unread: Sequence[PcoccError] = ()) -> None:
    """Raise RequestError when there is no such template; `unread` is why images, which are templates, may be missing."""
    if name not in templates:
        missed = "".join(f"images may be missing: {one}; " for one in unread[:1])
        raise RequestError(f"there is no template {name!r}", missed + known_names(templates))


def needs_images(templates: Mapping[str, Template], name: str) -> bool:
    """Tell whether a template, or one that it inherits from, is none of these, and so may be an image."""
    seen = set()
    while name in templates and name not in seen:
        seen.add(name)
        name = templates[name].values.get("inherits") or name
    return name not in templates


def known_names(templates: Mapping[str, Template]) -> str:
    """Return the hint that lists the templates there are."""
    names = sorted(filter(schema.is_name, templates))
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"templates: {', '.join(names[:20]) or 'none is defined'}{more}; see 'pcocc template list'"

