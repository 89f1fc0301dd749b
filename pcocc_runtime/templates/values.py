"""What each setting of a template may say: checks that turn a value of the file into the one that is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pcocc_runtime.documents.cluster import MAX_USER_DATA
from pcocc_runtime.settings import checks
from pcocc_runtime.settings.checks import Check
from pcocc_runtime.settings.tree import Node
from pcocc_runtime.templates.row import TemplateSetting

TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}"  # the 9p mount tag and virtiofs tag have at most 31 and 36 bytes
USER = r"[A-Za-z_][A-Za-z0-9_.-]{0,31}"  # what useradd(8) accepts in most images


def path(node: Node) -> str:
    """Check for a path that is absolute, or will be when `~` or %{...} is filled in."""
    found = checks.text(node)
    if not found.startswith(("/", "~", "%{")):
        raise node.error(f"{found!r} is not an absolute path", "begin it with '/', '~/' or '%{homedir}/'")
    return found


def image(node: Node) -> str | bool:
    """Check for an image's name or path, or false for none."""
    if node.value is False:
        return False
    if node.value is True:
        raise checks.mismatch(node, "text or false", "write an image's name or path, or false for none")
    return checks.text(node)


def user_data(node: Node) -> Any:
    """Check for the path of a file, or a cloud-config as a mapping, which stays as it is."""
    if isinstance(node.value, dict):
        if node.size > MAX_USER_DATA:
            hint = "let it fetch the rest, for example from a web server"
            raise node.error(f"is larger than {MAX_USER_DATA >> 10} KiB", hint)
        return node.plain()
    if isinstance(node.value, str) and ("\n" in node.value or node.value.startswith("#")):
        hint = "write the text into a file, and its path here"
        if not node.value.startswith("#!"):
            hint += (
                "; or leave out the '|' and the line #cloud-config, so that its keys stand below user-data"
            )
        raise node.error("must be the path of a file or the keys of a cloud-config, not the text of a file", hint)
    return path(node)


def path_or_record(table: Sequence[TemplateSetting]) -> Check:
    """Return the check for a path, or a mapping with this table; the value has every key of the table."""

    def check(node: Node) -> dict[str, Any]:
        if not isinstance(node.value, str | dict):
            raise checks.mismatch(node, "a path or a mapping")
        found = checks.record(table)(node) if isinstance(node.value, dict) else {"path": path(node)}
        return _with_defaults(table, found)

    return check


def _with_defaults(table: Sequence[TemplateSetting], found: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: found.get(one.name, one.default) for one in table}


def mount_type(node: Node) -> str:
    """Check for the way a directory is exported: 9p or virtiofs, also written virtio-9p or virtio-fs."""
    word: str = checks.choice("9p", "virtio-9p", "virtiofs", "virtio-fs")(node)
    return {"virtio-9p": "9p", "virtio-fs": "virtiofs"}.get(word, word)


def mounts(mount: Check) -> Check:
    """Return the check for a mapping of tags to mounts."""

    def check(node: Node) -> dict[str, Any]:
        if isinstance(node.value, dict):
            check_tag = checks.pattern(TAG, "a mount tag of at most 31 letters, digits, '_', '.', '-'")
            for tag, child in node.value.items():
                check_tag(_key(tag, child))
        found: dict[str, Any] = checks.mapping_of(mount)(node)
        return found

    return check


def mmp(node: Node) -> str:
    """Check for the protection of a drive against being used twice: yes, no or cluster."""
    if isinstance(node.value, bool):
        return "yes" if node.value else "no"
    word: str = checks.choice("yes", "no", "cluster")(node)
    return word


def drives(options: Sequence[TemplateSetting]) -> Check:
    """Return the check for drives: a path, a mapping of paths to options, or a list of both.

    The value is a tuple of mappings, each with `path` and every option.
    """

    def check(node: Node) -> tuple[dict[str, Any], ...]:
        if isinstance(node.value, tuple):
            return tuple(drive for found in checks.gather(check_item, node.value) for drive in found)
        return check_item(node)

    def check_item(node: Node) -> tuple[dict[str, Any], ...]:
        if isinstance(node.value, dict):
            return tuple(checks.gather(check_drive, node.value.items()))
        return ({"path": path(node), **_with_defaults(options, {})},)

    def check_drive(item: tuple[str, Node]) -> dict[str, Any]:
        name, node = item
        if name in [setting.name for setting in options]:
            hint = f"indent it deeper than the path, or write - /PATH: {{{name}: ...}}"
            raise node.error("stands beside the path of a drive, not under it", hint)
        drive = path(_key(name, node))
        return {"path": drive, **_with_defaults(options, checks.optional(checks.record(options))(node) or {})}

    return check


def places_of_drives(node: Node) -> list[Node]:
    """Return where each drive is named, in their order."""
    if isinstance(node.value, tuple):
        return [found for item in node.value for found in places_of_drives(item)]
    return list(node.value.values()) if isinstance(node.value, dict) else [node]


def _key(text: str, value: Node) -> Node:
    """Return the key of a mapping as a value of its own."""
    return Node(text, value.file, value.line, value.path, text)


# options of -machine that name files of the host, and the settings to use instead, which a site can limit
_NOT_IN_MACHINE = {
    "kernel": "kernel", "initrd": "kernel", "append": "kernel", "shim": "kernel", "firmware": "firmware",
    "dtb": "custom-args", "dumpdtb": "custom-args",
}  # fmt: skip


def machine(node: Node) -> str:
    """Check for a value of QEMU's -machine, without options that name files or have a setting of their own."""
    found: str = checks.pattern(r"[A-Za-z0-9._=,-]{1,128}", "a QEMU machine type")(node)
    for word in found.split(","):
        name = word.partition("=")[0]
        if name in _NOT_IN_MACHINE:
            hint = f"use the setting {_NOT_IN_MACHINE[name]!r}"
            raise node.error(f"{name!r} cannot be set in a machine type", hint)
    return found
