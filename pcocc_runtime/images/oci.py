"""OCI image layouts, as far as a KubeVirt containerDisk needs them: which blobs are its layers, and where the disk is.

Sources: opencontainers/image-spec (image-layout.md, image-index.md, manifest.md, layer.md) and KubeVirt's user guide:
the disk is the one file in /disk, raw or qcow2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pcocc_runtime.errors import RequestError

MAX_DOCUMENT = 4 << 20  # bytes: what registries accept as a manifest
_MAX_TAG = 128  # distribution-spec, Pulling manifests
_REF_NAME = "org.opencontainers.image.ref.name"
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Blob:
    """A file in blobs/sha256: its digest, its length in bytes, and how its content is compressed: '', gzip or zstd."""

    digest: str
    size: int
    packing: str = ""
    is_index: bool = False


def choose_manifest(text: bytes, tag: str | None, machine: str, where: str) -> Blob:
    """Return the blob that an index names for `tag` and this machine (uname -m): a manifest, or another index."""
    entries = [one for one in _list(_parse(text, where), "manifests", where) if isinstance(one, dict)]
    if tag is not None:
        entries = [one for one in entries if _get(one, "annotations").get(_REF_NAME) == tag]
    fitting = [one for one in entries if _fits(_get(one, "platform"), machine)]
    if not fitting:
        wanted = f"no image {tag!r}" if tag is not None and not entries else f"no image for {machine}" if entries else "no image"
        raise RequestError(f"{where} has {wanted}")
    if len(fitting) > 1 and tag is None:
        tags = [str(_get(one, "annotations").get(_REF_NAME))[:_MAX_TAG] for one in fitting]
        more = f" and {len(tags) - 10} more" if len(tags) > 10 else ""
        raise RequestError(
            f"{where} has {len(fitting)} images", f"name one of them: oci:DIR:TAG with TAG one of {', '.join(tags[:10])}{more}"
        )
    return _blob(fitting[0], where)


def parse_layers(text: bytes, where: str) -> tuple[Blob, ...]:
    """Return the layers of a manifest, the top one first."""
    layers = tuple(_blob(one, where) for one in _list(_parse(text, where), "layers", where))
    if not layers:
        raise RequestError(f"{where} has no layer")
    return layers[::-1]


def is_disk(name: str) -> bool:
    """Tell whether a member of a layer's tar archive is a file in /disk."""
    return re.fullmatch(r"(?:\./|/)*disk/[^/]+", name) is not None


def is_whiteout(name: str) -> bool:
    """Tell whether a member only says that something in lower layers is deleted (layer.md, Whiteouts)."""
    return name.rpartition("/")[2].startswith(".wh.")


_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def _fits(platform: Mapping[str, Any], machine: str) -> bool:
    architecture = platform.get("architecture")
    return architecture in (None, "unknown", _MACHINES.get(machine, machine)) and platform.get("os") in (None, "linux", "unknown")


def _parse(text: bytes, where: str) -> Mapping[str, Any]:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        raise RequestError(f"{where} is damaged: it is not JSON") from None
    if not isinstance(tree, dict):
        raise RequestError(f"{where} is damaged: it is not a mapping")
    return tree


def _list(tree: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = tree.get(key)
    if not isinstance(value, list):
        raise RequestError(f"{where} is damaged: it has no list of {key}")
    return value


def _get(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = tree.get(key)
    return value if isinstance(value, dict) else {}


def _blob(tree: Any, where: str) -> Blob:
    if not isinstance(tree, dict):
        raise RequestError(f"{where} is damaged: a descriptor is not a mapping")
    digest, size, kind = tree.get("digest"), tree.get("size"), str(tree.get("mediaType") or "")
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if not match or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise RequestError(f"{where} is damaged: a descriptor has no sha256 digest or no size")
    packing = "zstd" if kind.endswith("zstd") else "gzip" if kind.endswith("gzip") else ""
    return Blob(match[1], size, packing, kind in _INDEXES)
