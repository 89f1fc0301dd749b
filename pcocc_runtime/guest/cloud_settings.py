"""Single settings of a cloud-config that make cloud-init leave out more than themselves."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from pcocc_runtime.guest.jinja import STAND_IN
from pcocc_runtime.guest.user_data_fault import Fault
from pcocc_runtime.guest.user_data_parts import unpack
from pcocc_runtime.settings import checks

_MERGERS = ("dict", "list", "str")  # cloudinit/mergers/m_*.py
_MERGER = re.compile(r"([a-z_][a-z0-9_]*)\((.*?)\)$")
_LISTS = (str, list, dict, set)  # what a merger's settings are looked for in
_PACKED = re.compile(r"(gz|gzip)?[+]?(b64|base64)?")  # cc_write_files.py, canonicalize_extraction


def find_merger_fault(tree: Mapping[Any, Any], header: str = "") -> Fault | None:
    """Return why cloud-init would not merge a cloud-config: it, or its part's header, names an unknown way to merge.

    (mergers/__init__.py)
    """
    keys = [key for key in ("merge_how", "merge_type") if tree.get(key) is not None]
    for value, place in (*((tree[key], (key,)) for key in keys), (header, ())):
        if not all(name in _MERGERS for name in _merger_names(value)):
            message = "is not a way to merge that cloud-init knows, and it would leave out this whole cloud-config"
            return Fault(message, "write it like: merge_how: list(append)+dict(recurse_list)", place)
    return None


def _merger_names(value: Any) -> list[str]:
    """Return the names of mergers; an empty one stands for something that is not a merger."""
    if isinstance(value, str):
        words = [word for part in value.split("+") if (word := part.lower().strip().replace("-", "_"))]
        return [found[1] if (found := _MERGER.match(word)) else "" for word in words]
    if not isinstance(value, list):
        return [""] if value or not isinstance(value, dict) else []
    names = list[str]()
    for one in value:
        named = isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("settings"), _LISTS)
        name = one["name"].replace("-", "_").strip() if named else one[0] if isinstance(one, list) and one else ""
        names.append(name if isinstance(name, str) else "")
    return names


def find_file_fault(entries: list[Any]) -> Fault | None:
    """Return why cloud-init fails on one of the files to write, and so writes no later one (cc_write_files.py)."""
    after = "cloud-init fails on it, and writes no file after it"
    for index, entry in enumerate(entries):
        if not entry.get("path"):
            continue  # cloud-init skips it
        for key in ("path", "owner", "encoding", "content"):
            value = entry.get(key)
            kinds = (str, bytes, type(None)) if key == "content" else (str,)
            if (value or key == "content") and key in entry and not isinstance(value, kinds):
                message = f"must be text, not {checks.type_name(value)}: {after}"
                return Fault(message, "put it in quotes", ("write_files", index, key))
        if _is_badly_packed(entry.get("content") or "", entry.get("encoding") or ""):
            message = f"cannot be decoded as {entry['encoding']}: {after}"
            hint = "encode it again, or leave its encoding out"
            return Fault(message, hint, ("write_files", index, "content"))
    return None


def find_empty_files(tree: Mapping[Any, Any]) -> list[Fault]:
    """Return a note for each file to write whose content is nothing at all."""
    entries = tree.get("write_files")
    notes = []
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if not isinstance(entry, dict) or not entry.get("path") or entry.get("source"):
            continue
        if entry.get("content", "") is None:
            message = "is nothing: cloud-init before 24.3 fails on it and writes no file after it"
            notes.append(Fault(message, "write '' for an empty file", ("write_files", index, "content")))
    return notes


def _is_badly_packed(content: str | bytes, encoding: str) -> bool:
    """Tell whether a file's content cannot be decoded as its encoding says."""
    found = _PACKED.fullmatch(encoding.lower().strip())
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    if not found or STAND_IN.encode() in data:
        return False
    try:
        data = base64.b64decode(data) if found[2] else data
        if found[1]:
            unpack(data)
    except (binascii.Error, ValueError):
        return True
    return False
