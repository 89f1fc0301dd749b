"""What a user asks for on the command line: the text of the --pcocc options, and the answer to the plugin."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pcocc_runtime.documents.cluster import Cluster, Mount, encode_cluster, sets_text
from pcocc_runtime.documents.typed_options import TypedOptions
from pcocc_runtime.errors import RequestError, one_line
from pcocc_runtime.settings.checks import is_template_name
from pcocc_runtime.templates.values import TAG

_FORM = "write --pcocc-template=TPL[:N][,TPL[:N]...], with N from 1"
_TYPES = {"virtio-9p": "9p", "virtio-fs": "virtiofs"}  # as the original pcocc has them
_MOUNT_FORM = "write --pcocc-mount=TAG=PATH[,type=9p|virtiofs][,readonly]"
_SET_FORM = "write --pcocc-vm=vm[0-3,7] or --pcocc-vm=vm2"
MAX_TEXT = 16 * 1024
_MOST_NOTES, _LONGEST_NOTE = 8, 600


@dataclass(frozen=True, slots=True)
class RequestPart:
    """Some VMs of one template."""

    template: str
    count: int


@dataclass(frozen=True, slots=True)
class Request:
    """The options of one command; an image belongs to a template, or to all when its first member is None."""

    parts: tuple[RequestPart, ...]
    images: tuple[tuple[str | None, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    user_data: str | None = None
    vms: str | None = None
    user_data_force: bool = False
    checkpoints: str | None = None

    @property
    def vm_count(self) -> int:
        """Return the number of VMs asked for."""
        return sum(part.count for part in self.parts)


def parse_request(options: TypedOptions) -> Request:
    """Return the request for VMs that boot."""
    if options.template is not None and not options.template.strip():
        raise RequestError(
            "--pcocc-template has no value",
            "name a template, as in --pcocc-template=NAME:2; 'pcocc template list' lists them",
        )
    if options.template is None and options.restart == "":
        raise RequestError("--pcocc-restart= names no directory", "name one that 'pcocc checkpoint DIR' has made")
    if options.template is None:
        option = next(_name_given(options), "vm" if options.checkpoint is None else "checkpoint")
        raise RequestError(f"--pcocc-{option} needs --pcocc-template", _FORM)
    parts = parse_request_parts(options.template)
    _ensure_path(options.user_data or "")
    return Request(
        parts,
        tuple(parse_image(image, parts) for image in options.images),
        parse_mounts(options.mounts),
        options.user_data or None,
        options.vm or None,
        options.user_data_force,
        options.checkpoint,
    )


def _ensure_path(user_data: str) -> None:
    """Raise RequestError for a text or a URL where the path of user-data belongs."""
    if user_data.startswith("#") and "\n" in user_data:
        message = "--pcocc-user-data takes the path of a file, not its text"
        raise RequestError(message, "write the text into a file, and name that")
    if re.match(r"[a-z0-9+]+://", user_data):
        message = f"--pcocc-user-data={one_line(user_data)} is not the path of a file"
        raise RequestError(message, "fetch it first, and name the file")


def find_empty_options(options: TypedOptions) -> list[str]:
    """Return a note for each option that was given without a value, perhaps by a variable that is not set."""
    named = {"user-data": (options.user_data, "a file"), "restart": (options.restart, "a directory")}
    empty = [(name, what) for name, (value, what) in named.items() if value == ""]
    return [f"--pcocc-{name}= does not name {what}, and is ignored" for name, what in empty]


@dataclass(frozen=True, slots=True)
class RestartRequest:
    """A job that goes on from the checkpoint in a directory; its batch script is for the VMs `vms`, if not None.

    `checkpoints` is the text of --pcocc-checkpoint.
    """

    directory: str
    vms: str | None
    checkpoints: str | None = None


def find_restart(options: TypedOptions) -> RestartRequest | None:
    """Return the request for VMs that go on from a checkpoint, None when the options are for VMs that boot.

    RequestError when another option excludes --pcocc-restart.
    """
    if not options.restart:
        return None
    other = "template" if options.template else next(_name_given(options), None)
    if other:
        raise RequestError(
            f"--pcocc-restart and --pcocc-{other} exclude each other",
            "VMs that go on from a checkpoint are as they were; leave one of the two options out",
        )
    return RestartRequest(options.restart, options.vm or None, options.checkpoint)


def _name_given(options: TypedOptions) -> Iterator[str]:
    """Yield the options that were given and say something of VMs that boot, without --pcocc-."""
    named = {
        "image": options.images, "mount": options.mounts, "user-data": options.user_data,
        "user-data-force": options.user_data_force,
    }  # fmt: skip
    return (name for name, value in named.items() if value)


def parse_request_parts(text: str) -> tuple[RequestPart, ...]:
    """Return the parts of a --pcocc-template value in order."""
    if len(text) > MAX_TEXT:
        raise RequestError(f"--pcocc-template is longer than {MAX_TEXT} characters", _FORM)
    return tuple(_parse_part(word, text) for word in text.split(","))


def _parse_part(word: str, text: str) -> RequestPart:
    name, colon, count = word.partition(":")
    if not is_template_name(name):
        message = f"{name!r} in --pcocc-template={one_line(text)} is not the name of a template"
        raise RequestError(message, _find_meaning(word, text))
    return RequestPart(name, _parse_count(count, name, text) if colon else 1)


def _find_meaning(word: str, text: str) -> str:
    """Return what to write for a part that is written in another way, or with spaces; else the form."""
    words = [one for one in re.split(r"[\s:=*]+|(?<=[0-9])x(?=\s)", word) if one] if len(word) < 200 else []
    numbers = [one for one in words if re.fullmatch("[0-9]{1,9}", one, re.ASCII)]
    names = [one for one in words if is_template_name(one) and one not in numbers]
    if len(words) == 2 and len(names) == len(numbers) == 1:
        return f"write --pcocc-template={names[0]}:{numbers[0]}"
    if not word.strip() and text.strip(" ,"):
        return "leave out the comma that stands there for nothing"
    pieces = [one for one in re.split(r"[\s,;]+", text) if one] if len(text) < 200 else []
    parts = [re.fullmatch(r"([^:]+)(?::[0-9]+)?", one) for one in pieces]
    if re.search(r"[\w.-][\s;]+[\w.-]", text) and all(one and is_template_name(one[1]) for one in parts):
        return f"put commas between templates: --pcocc-template={','.join(pieces)}"
    closed = "".join(text.split())
    return _FORM if closed == text else f"write it without spaces: --pcocc-template={one_line(closed)}"


def _parse_count(count: str, name: str, text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", count, re.ASCII):
        raise RequestError(
            f"{count!r} is not a number of VMs of template {name!r}", _find_meaning(f"{name}:{count}", text)
        )
    if len(count.lstrip("+0")) > 18 and not count.startswith("-"):
        raise RequestError(f"{count} VMs of template {name!r} are more than any job can have", _FORM)
    number = int(count[:19])  # a long negative number is cut short: its sign decides
    if number < 1:
        raise RequestError(f"the number of VMs of {name!r} must be at least 1, not {count}", _FORM)
    return number


def render_request_parts(parts: tuple[RequestPart, ...]) -> str:
    """Return the canonical text of the parts."""
    return ",".join(f"{part.template}:{part.count}" for part in parts)


def render_answer(parts: tuple[RequestPart, ...], cluster: Cluster, notes: Sequence[str] = ()) -> str:
    """Return the plugin's 'key value' lines: all tasks have the largest VM's size; each note is a line to tell."""
    lines = {
        "cluster": encode_cluster(cluster),
        "vms": cluster.vm_count,
        "cpus": max(group.cpus for group in cluster.groups),
        "memory": max(group.memory for group in cluster.groups),
        "exclusive": int(any(group.full_node for group in cluster.groups)),
        "template": render_request_parts(parts),
        "sets": sets_text(cluster),
    }
    told = [one_line(note)[:_LONGEST_NOTE] for note in notes[:_MOST_NOTES]]
    if len(notes) > _MOST_NOTES:
        told.append(f"and {len(notes) - _MOST_NOTES} more notes; 'pcocc template check' shows all of a template's")
    return "".join(f"{key} {value}\n" for key, value in [*lines.items(), *(("note", text) for text in told)])


def parse_image(text: str, parts: tuple[RequestPart, ...]) -> tuple[str | None, str]:
    """Return (template or None, image) of a --pcocc-image value; a path may contain '='."""
    name, equals, image = text.partition("=")
    if not equals or ("/" in name and name not in [part.template for part in parts]):
        return None, _filled(text, text)
    if name not in [part.template for part in parts]:
        message = f"--pcocc-image={text} names template {name!r}, which is not in --pcocc-template"
        raise RequestError(message, "name one of the templates of --pcocc-template, or leave the name out")
    return name, _filled(image, text)


def _filled(image: str, text: str) -> str:
    if not image:
        raise RequestError(f"--pcocc-image={text} names no image", "write --pcocc-image=[TPL=]IMAGE")
    return image


def parse_mounts(texts: list[str] | tuple[str, ...]) -> tuple[Mount, ...]:
    """Return the mounts of all --pcocc-mount values; a tag may be given once."""
    mounts = tuple(parse_mount(text) for text in texts)
    tags = [mount.tag for mount in mounts]
    twice = next((tag for tag in tags if tags.count(tag) > 1), None)
    if twice:
        hint = "each directory needs a tag of its own"
        raise RequestError(f"--pcocc-mount gives the tag {twice!r} twice", hint)
    return mounts


def parse_mount(text: str) -> Mount:
    """Return the mount of one --pcocc-mount value; options are taken from its end: a path may contain commas."""
    tag, equals, rest = text.partition("=")
    if not equals or not re.fullmatch(TAG, tag):
        raise RequestError(f"--pcocc-mount={text} does not begin with a tag and '='", _MOUNT_FORM)
    kinds, readonly = list[str](), False
    while match := re.fullmatch(r"(.*),(readonly(?:=true|=false)?|type=([^,/]*))", rest, re.DOTALL):
        rest, readonly = match[1], readonly or match[2] in ("readonly", "readonly=true")
        kinds += [] if match[3] is None else [_TYPES.get(match[3], match[3])]
    if len(kinds) > 1:
        raise RequestError(f"--pcocc-mount={text} has {len(kinds)} types, but can have one only", _MOUNT_FORM)
    kind = kinds[0] if kinds else "9p"
    if kind not in ("9p", "virtiofs"):
        raise RequestError(f"--pcocc-mount={text} has the unknown type {kind!r}", _MOUNT_FORM)
    if not rest:
        raise RequestError(f"--pcocc-mount={text} names no directory", _MOUNT_FORM)
    return Mount(tag, rest, kind, readonly)


def parse_vms(text: str, vm_count: int) -> tuple[int, ...]:
    """Return the ranks in a set such as vm[0-3,7]; RequestError when it is not a set, or names other VMs."""
    hint = f"this virtual cluster has {f'vm[0-{vm_count - 1}]' if vm_count > 1 else 'only vm0'}"
    ranks: set[int] = set()
    for word in re.findall(r"(?:\[[^\]]*\]|[^,\[])+|.", text):
        if word == ",":
            continue
        match = re.fullmatch(r"vm(?:([0-9]{1,9})|\[([0-9,-]+)\])", word)
        if not match:
            raise RequestError(f"{text!r} is not a set of VMs", _SET_FORM)
        for part in (match[1] or match[2]).split(","):
            ranks |= _parse_ranks(part, text, vm_count, hint)
    return tuple(sorted(ranks))


def _parse_ranks(part: str, text: str, vm_count: int, hint: str) -> set[int]:
    match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part)
    if not match:
        raise RequestError(f"{text!r} is not a set of VMs", _SET_FORM)
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise RequestError(f"{text!r} counts backwards", hint)
    if last >= vm_count:
        raise RequestError(f"there is no vm{last} in this virtual cluster", hint)
    return set(range(first, last + 1))
