"""Texts that no handler of cloud-init takes: what they were meant to be, and why cloud-init does not know them."""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

from pcocc_runtime.guest.cloud_config import HEADER, parse_cloud_config
from pcocc_runtime.guest.user_data_fault import Fault
from pcocc_runtime.guest.user_data_parts import (
    ARCHIVE,
    CONFIG,
    JSON_PATCH,
    Broken,
    is_mime,
    parse_parts,
    type_of,
    unpack,
)

_BOM = "\ufeff"
# keys that cloud-init has and hardly any other program: a mapping with one of them was meant as a cloud-config
_TELLTALE = frozenset({
    "apt", "bootcmd", "ca_certs", "chpasswd", "cloud_config_modules", "cloud_final_modules",
    "cloud_init_modules", "disable_root", "disk_setup", "fs_setup", "growpart", "manage_etc_hosts", "ntp",
    "package_reboot_if_required", "package_update", "package_upgrade", "packages", "power_state",
    "preserve_hostname", "resize_rootfs", "runcmd", "ssh_authorized_keys", "ssh_deletekeys", "ssh_import_id",
    "ssh_pwauth", "users", "write_files", "yum_repos",
})  # fmt: skip
# keys that other programs have too: a mapping with these keys only was meant as a cloud-config
_COMMON = frozenset({
    "ansible", "chef", "device_aliases", "final_message", "fqdn", "groups", "hostname", "keyboard",
    "landscape", "locale", "mounts", "output", "password", "phone_home", "puppet", "rsyslog", "salt_minion",
    "snap", "swap", "timezone", "user", "vendor_data", "zypper",
})  # fmt: skip
_OTHERS = frozenset({"ignition", "variant", "machine", "apiVersion"})  # Ignition, Butane, Talos, Kubernetes
_EXACT = re.compile(r"#cloud-config", re.IGNORECASE)
_NEAR = re.compile(r"\W{0,4}cloud[-_ ]{0,2}config(?:[-_ ]?(archive|jsonp))?\W*(#.*)?", re.IGNORECASE)
_NEAR_JINJA = re.compile(r"#+\s*template:\s*jinja", re.IGNORECASE)
_MIME_PART = re.compile(r"(?im)^content-type:[ \t]*(multipart|text)/")
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]{16,}")
_LINES = 30  # a misspelt header is looked for in this many of the first lines


class Miss(NamedTuple):
    """Why no handler takes a text, and whether it was meant as a cloud-config."""

    fault: Fault
    meant: bool


def find_miss(text: str) -> Miss:
    """Return what is to be told of a text that no handler of cloud-init takes."""
    hint = _find_cause(text)
    if _is_meant(text):
        message = f"does not begin with {HEADER}: the guest's cloud-init would ignore it"
        return Miss(Fault(message, hint or f"make {HEADER} its first line, with nothing before it"), True)
    start = text.lstrip().split("\n", 1)[0][:40]
    message = (
        f"begins with {start!r}, which cloud-init does not know: a guest with cloud-init would ignore it"
    )
    return Miss(Fault(message, hint or f"cloud-init reads what begins with {HEADER}, #! and the like"), False)


def is_misspelt(text: str) -> bool:
    """Tell whether a text begins with a misspelt header, such as `#!cloud-config`, which would be a script's."""
    return _NEAR.fullmatch(text.lstrip().split("\n", 1)[0].strip()) is not None


def _find_cause(text: str) -> str | None:
    """Return how to make cloud-init know a text, if the cause is plain."""
    if text.startswith(_BOM):
        return "save it without the byte-order mark that it begins with, as plain UTF-8"
    if _decode(text):
        return "decode it first, with: base64 -d"
    lines = [line.strip() for line in text.splitlines()[:_LINES] if line.strip()]
    if lines and _NEAR_JINJA.match(lines[0]):
        return "make '## template: jinja', spelled exactly so, its first line"
    if _MIME_PART.search(text):
        return (
            "a MIME message begins with the lines 'MIME-Version: 1.0' and 'Content-Type: multipart/mixed;"
            " boundary=...'"
        )
    for line in lines:
        if not _EXACT.match(line) and (found := _NEAR.fullmatch(line)):
            header = f"{HEADER}-{found[1].lower()}" if found[1] else HEADER
            return f"write {header} in place of {line[:40]}, as its first line"
    return None


def _is_meant(text: str) -> bool:
    text = text.lstrip(_BOM)
    if type_of(text) in (CONFIG, ARCHIVE, JSON_PATCH):
        return True
    if text.startswith("#!"):
        return is_misspelt(text)
    if decoded := _decode(text):
        return _is_config(decoded)
    lines = text.splitlines()
    known = re.search(r"(?im)^content-type:[ \t]*text/cloud-config", text) is not None
    if known or any(_EXACT.match(line.strip()) for line in lines):
        return not text.lstrip().lower().startswith("#ps1")
    return any(_NEAR.fullmatch(line.strip()) for line in lines[:_LINES]) or _has_its_keys(text)


def _has_its_keys(text: str) -> bool:
    if text.lstrip().lower().startswith("#ps1"):  # PowerShell, which cloudbase-init takes
        return False
    tree, _fault = parse_cloud_config(text)
    if not isinstance(tree, dict) or not tree or not _OTHERS.isdisjoint(tree):
        return False
    return not _TELLTALE.isdisjoint(tree) or _COMMON.issuperset(tree)


def _decode(text: str) -> str:
    """Return the user-data inside a text that is base64, gzipped or not; empty when there is none."""
    if not _BASE64.fullmatch(text):
        return ""
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
        found = (unpack(data) if data.startswith(b"\x1f\x8b") else data).decode()
    except (binascii.Error, ValueError):
        return ""
    return found if type_of(found) or is_mime(found) or _is_meant(found) else ""


def _is_config(text: str) -> bool:
    """Tell whether a text that was decoded has a cloud-config in it."""
    try:
        return any(part.type in (CONFIG, ARCHIVE, JSON_PATCH) for part in parse_parts(text)) or (
            not is_mime(text) and _is_meant(text)
        )
    except Broken:
        return True
