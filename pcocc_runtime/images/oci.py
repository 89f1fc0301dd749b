"""OCI image layouts, as far as an image that holds a disk needs them: which manifest is meant, and where its disk is.

Sources: opencontainers/image-spec (image-layout.md, image-index.md, manifest.md, layer.md); KubeVirt's user
guide: the disk of a containerDisk is the one file in /disk, raw or qcow2; ORAS: each layer of an artifact is
a file, named by its annotation.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pcocc_runtime.errors import RequestError

MAX_DOCUMENT = 4 << 20  # bytes: what registries accept as a manifest
_MAX_TAG = 128  # distribution-spec, Pulling manifests
_REF_NAME, _CONTAINERD_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"
_TITLE = "org.opencontainers.image.title"
_ATTESTATION = "vnd.docker.reference.type"  # marks attestations, which BuildKit adds to an index
_SIGNATURE = re.compile(r"sha256-[0-9a-f]{64}(\.[a-z]+)?")  # a tag of cosign's, or of the referrers API
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.artifact.manifest.v1+json",
)  # fmt: skip
_IMAGE_CONFIGS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
_DIGEST, _OTHER_DIGEST = re.compile(r"sha256:([0-9a-f]{64})"), re.compile(r"([a-z0-9+._-]{1,32}):[\w=-]{32,}")


@dataclass(frozen=True, slots=True)
class Blob:
    """A file in blobs/sha256: its digest, its length in bytes, its media type, and its name in an artifact."""

    digest: str
    size: int
    kind: str = ""
    title: str = ""

    @property
    def packing(self) -> str:
        """Return how its content is compressed, by its media type: '', gzip or zstd."""
        return next((word for word in ("zstd", "gzip") if self.kind.endswith(word)), "")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The layers of an image, the top one first; those of an artifact need not be file systems.

    `is_about_other`: it says something about another manifest, its `subject`, as a signature does.
    """

    layers: tuple[Blob, ...]
    is_artifact: bool
    is_about_other: bool = False


def choose_manifests(text: bytes, tag: str | None, machine: str, where: str) -> tuple[Blob, ...]:
    """Return the manifests or indexes that an index names for `tag` and this machine (uname -m), the best first.

    Entries that are not images, such as attestations, are left out; those of an unknown platform count if none fits.
    """
    every = [one for one in _list(_parse(text, where), "manifests", where) if isinstance(one, dict)]
    entries = [one for one in every if _may_be_image(one, tag)]
    if tag is not None:
        entries = [one for one in entries if tag in _names(one)] or [
            one for one in entries if any(name.endswith(f":{tag}") for name in _names(one))
        ]
    fitting = [one for one in entries if _fits(_get(one, "platform"), machine)]
    fitting = fitting or [one for one in entries if _get(one, "platform").get("architecture") == "unknown"]
    if not fitting:
        wanted = (
            f"no image {tag!r}"
            if tag is not None and not entries
            else f"no image for {machine}" if entries else "no image"
        )
        raise RequestError(f"{where} has {wanted}", _what_there_is(entries or every))
    tags = list(dict.fromkeys(_names(one)[0][:_MAX_TAG] for one in fitting if _names(one)))
    if len(tags) > 1 and tag is None:
        more = f" and {len(tags) - 10} more" if len(tags) > 10 else ""
        raise RequestError(
            f"{where} has {len(tags)} images",
            f"name one of them: oci:DIR:TAG with TAG one of {', '.join(tags[:10])}{more}"
        )
    return tuple(_blob(one, where) for one in fitting)


def _may_be_image(entry: Mapping[str, Any], tag: str | None) -> bool:
    if _ATTESTATION in _get(entry, "annotations"):
        return False
    if tag is None and any(_SIGNATURE.fullmatch(name) for name in _names(entry)):
        return False
    return not entry.get("mediaType") or entry["mediaType"] in (*_INDEXES, *_MANIFESTS)


def _names(entry: Mapping[str, Any]) -> list[str]:
    notes = _get(entry, "annotations")
    return [name for name in (notes.get(_REF_NAME), notes.get(_CONTAINERD_NAME)) if isinstance(name, str)]


def _what_there_is(entries: list[dict[str, Any]]) -> str | None:
    """Return the hint that says what an index has."""
    tags = [name for one in entries for name in _names(one)[:1]]
    platforms = [
        f"{_get(one, 'platform').get('os')}/{_get(one, 'platform').get('architecture')}"
        for one in entries
        if one.get("platform")
    ]
    known = list(dict.fromkeys(word[:_MAX_TAG] for word in (*tags, *platforms)))
    return f"it has {', '.join(known[:10])}" if known else None


def is_index(text: bytes, where: str) -> bool:
    """Tell whether a document is an index: a descriptor need not say so."""
    tree = _parse(text, where)
    return tree.get("mediaType") in _INDEXES or ("manifests" in tree and "layers" not in tree)


def parse_manifest(text: bytes, where: str) -> Manifest:
    """Return what a manifest says."""
    tree = _parse(text, where)
    layers = tuple(_blob(one, where) for one in _list(tree, "layers" if "layers" in tree else "blobs", where))
    if not layers:
        raise RequestError(f"{where} has no layer")
    is_artifact = _get(tree, "config").get("mediaType", _IMAGE_CONFIGS[0]) not in _IMAGE_CONFIGS
    return Manifest(layers[::-1], is_artifact, bool(_get(tree, "subject")))


class DiskFolder:
    """What is in /disk when all layers are stacked; they are taken from the top one down (layer.md, Whiteouts)."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.is_closed = False  # nothing of lower layers can be seen
        self._hidden: set[str] = set()
        self._told: set[str] = set()
        self._closes = False

    def take(self, name: str, is_directory: bool) -> str | None:
        """Take an entry of this layer; return its name in /disk if it is a file that can be seen there."""
        first, _, rest = posixpath.normpath(f"/{name}").lstrip("/").partition("/")
        if (
            (first == "disk" and not rest and not is_directory)
            or (first in (".wh.disk", _OPAQUE) and not rest)
            or (first, rest) == ("disk", _OPAQUE)
        ):
            self._closes = True
            return None
        if first != "disk" or not rest or "/" in rest:
            return None
        self._told.add(rest.removeprefix(_WHITEOUT))
        if rest.startswith(_WHITEOUT) or is_directory or rest in self._hidden or self.is_closed:
            return None
        if rest not in self.files:
            self.files.append(rest)
        return rest

    def end_layer(self) -> None:
        """Go on with the layer below; names that this layer has, or deletes, cannot be seen there."""
        self._hidden |= self._told
        self.is_closed |= self._closes


_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def _fits(platform: Mapping[str, Any], machine: str) -> bool:
    architecture = str(platform.get("architecture") or machine).lower()  # some builders write x86_64
    return architecture in (machine, _MACHINES.get(machine)) and platform.get("os") in (None, "linux")


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
    other = _OTHER_DIGEST.fullmatch(digest) if isinstance(digest, str) and not match else None
    if other and other[1] != "sha256":
        hint = "push the image to a registry, which gives it sha256 digests, and import it from there"
        raise RequestError(f"{where} has {other[1]} digests, and pcocc compares only sha256 ones", hint)
    if not match or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise RequestError(f"{where} is damaged: a descriptor has no sha256 digest or no size")
    title = _get(tree, "annotations").get(_TITLE)
    return Blob(match[1], size, kind, title if isinstance(title, str) else "")
