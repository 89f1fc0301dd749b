"""An image repository's layout, version 2 (that of pcocc 0.7), and the metadata of its images.

    .config                  YAML: version: 2
    data/HH/HHHH...          a layer: a file named by the sha256 of its content, HH being its first two digits
    meta/NAME@REV            JSON: name, revision, kind (vm or ctr), owner, timestamp (s since the epoch), data_blobs
                             (layers, lowest first), custom_meta (a mapping), description (optional)
    .tmp/                    work in progress

A layer's backing file is the layer below, as ../../data/HH/HHHH..., so that a repository can be moved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pcocc_runtime.errors import RequestError

METADATA_VERSION = 2
MAX_LAYERS = 16  # of one image: QEMU opens all of them
MAX_META = 1 << 20  # bytes of a metadata file
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
# pcocc 0.7 limits names only by the 255 bytes of a file's name
_ENTRY = re.compile(r"(?!\.)([A-Za-z0-9_.-]+)@([0-9]+)")


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of an image; `blobs` are its layers as written in the metadata, lowest first."""

    name: str
    revision: int
    kind: str
    owner: str
    timestamp: float
    blobs: tuple[str, ...]
    custom: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""

    @property
    def entry(self) -> str:
        """Return the name of its file in meta/."""
        return f"{self.name}@{self.revision}"

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the hexadecimal sha256 of each layer, lowest first."""
        return tuple(digest_of(blob) for blob in self.blobs)


def parse_entry(filename: str) -> tuple[str, int] | None:
    """Return (name, revision) from the name of a file in meta/, None when it is not a metadata file's."""
    match = _ENTRY.fullmatch(filename)
    return (match[1], int(match[2])) if match and str(int(match[2])) == match[2] else None


def digest_of(blob: str) -> str:
    """Return the bare hexadecimal sha256 of a data_blobs item."""
    return blob.rpartition(":")[2]


def is_layer(filename: str, directory: str) -> bool:
    """Tell whether a file in data/ has the name of a layer and is in the right directory."""
    return len(filename) == 64 and _DIGEST.fullmatch(filename) is not None and filename[:2] == directory


def layer_path(layer: str) -> str:
    """Return the path of a layer below the repository's root."""
    return f"data/{layer[:2]}/{layer}"


def backing_name(layer: str) -> str:
    """Return the name by which the layer above refers to this one."""
    return f"../../{layer_path(layer)}"


def parse_revision(text: str, filename: str, where: str) -> Revision:
    """Return the revision in a metadata file; RequestError when it is damaged or does not match the file's name."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        raise _damaged(where, "it is not JSON") from None
    if not isinstance(tree, dict):
        raise _damaged(where, "it is not a mapping")
    for key, kinds, what in _KEYS:
        if not isinstance(tree.get(key), kinds) or isinstance(tree.get(key), bool):
            raise _damaged(where, f"{key} is not {what}" if key in tree else f"{key} is missing")
    if (tree["name"], tree["revision"]) != parse_entry(filename):
        raise _damaged(where, f"it describes another image than {filename}")
    blobs = tree["data_blobs"]
    if not blobs or not all(isinstance(blob, str) and _DIGEST.fullmatch(blob) for blob in blobs):
        raise _damaged(where, "data_blobs is not a list of sha256 sums")
    if not 0 <= tree["timestamp"] < 1 << 37:  # NaN is refused too
        raise _damaged(where, "timestamp is not a time")
    custom, description = tree.get("custom_meta"), tree.get("description")
    return Revision(
        tree["name"], tree["revision"], tree["kind"], tree["owner"], tree["timestamp"], tuple(blobs),
        custom if isinstance(custom, dict) else {}, description if isinstance(description, str) else "",
    )  # fmt: skip


_KEYS: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("name", str, "text"), ("revision", int, "a whole number"), ("kind", str, "text"), ("owner", str, "text"),
    ("timestamp", (int, float), "a number"), ("data_blobs", list, "a list"),
)  # fmt: skip


def render_revision(one: Revision) -> bytes:
    """Return the content of a revision's metadata file."""
    tree: dict[str, Any] = {
        "name": one.name, "revision": one.revision, "kind": one.kind, "owner": one.owner,
        "timestamp": one.timestamp,
        "data_blobs": list(one.blobs), "custom_meta": dict(one.custom),
    }  # fmt: skip
    if one.description:
        tree["description"] = one.description
    return json.dumps(tree).encode()


def next_revision(revisions: Iterable[int]) -> int:
    """Return the number of the next revision; the first is 0."""
    return max(revisions, default=-1) + 1


def _damaged(where: str, reason: str) -> RequestError:
    return RequestError(
        f"the metadata file {where} is damaged: {reason}", "delete that file, or restore it from a backup"
    )
