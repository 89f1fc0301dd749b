"""Disks in OCI images (a containerDisk, or an ORAS artifact), in a layout, an archive or a registry."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import formats, oci, oci_files
from pcocc_runtime.images.oci import Blob, DiskFolder, Manifest
from pcocc_runtime.progress import Progress
from pcocc_runtime.system import held, user_files

PREFIXES = ("oci", "oci-archive", "docker", *oci_files.FETCHED)
_DEEPEST = 4  # indexes in indexes
_NO_DISK = "KubeVirt's user guide explains how to make one"


def fetch_disk(source: str, work: Path, progress: Progress) -> Path:
    """Return the disk of an image as a file, which may be in `work`; RequestError when it has none, or several."""
    directory, tag = _find_layout(source, work, progress)
    where = held.show(str(directory / "index.json"))
    manifest = _find_manifest(directory, oci_files.read_document(directory, "index.json"), tag, where, set())
    if manifest is None:
        raise RequestError(f"{where} has no image: its indexes lead to none")
    files = [one for one in manifest.layers if oci_files.is_file(directory, one, manifest.is_artifact)]
    if files:
        return oci_files.check_blob(directory, choose_file(files, source), progress("comparing its checksum"))
    return _extract(directory, manifest, work / "source", source, progress)


def _find_layout(source: str, work: Path, progress: Progress) -> tuple[Path, str | None]:
    scheme, _, rest = source.partition(":")
    if scheme.lower() == "docker":
        if not re.fullmatch(r"docker://[^\s/-][^\s]*", source):
            raise RequestError(f"{source!r} is not an image in a registry", "write docker://HOST/NAME:TAG")
        progress(f"fetching {source}")(0, 0)
        oci_files.fetch_with_skopeo(source, work / "oci")
        return work / "oci", None
    if scheme.lower() in oci_files.FETCHED:
        progress(f"reading {source}")(0, 0)
        oci_files.fetch_with_skopeo(f"{scheme.lower()}:{rest}", work / "oci")
        return work / "oci", None
    path, tag = split_place(rest)
    if os.path.isdir(path):
        return user_files.absolute_path(str(path)), tag
    if scheme.lower() == "oci" and not path.is_file():
        return user_files.absolute_path(str(path)), tag  # reading it says what is wrong
    oci_files.unpack_archive(user_files.absolute_path(str(path)), work / "oci", progress("unpacking it"))
    return work / "oci", tag


def split_place(text: str) -> tuple[Path, str | None]:
    """Return the path and the tag of PATH[:TAG]; both may have colons, and the longest path that exists is meant."""
    ends = [len(text), *(match.start() for match in reversed([*re.finditer(":", text)]))]
    end = next((end for end in ends if os.path.exists(text[:end])), None)
    if end is None:  # no path exists: the message names the shortest
        end = ends[-1]
    return Path(text[:end]), text[end + 1 :] or None


def _find_manifest(
    directory: Path, text: bytes, tag: str | None, where: str, seen: set[str], depth: int = 0
) -> Manifest | None:
    """Return the first manifest that an index leads to, if any; one that is about another manifest comes last."""
    wrong: RequestError | None = None
    other: Manifest | None = None
    for blob in oci.choose_manifests(text, tag, os.uname().machine, where):
        if blob.digest in seen:
            continue
        seen.add(blob.digest)
        document, place = (
            oci_files.read_blob(directory, blob),
            f"blob {blob.digest} of {held.show(str(directory))}",
        )
        if not oci.is_index(document, place):
            manifest = oci.parse_manifest(document, place)
            if not manifest.is_about_other:
                return manifest
            other = other or manifest
            continue
        try:
            found = (
                _find_manifest(directory, document, None, place, seen, depth + 1)
                if depth < _DEEPEST
                else None
            )
        except RequestError as error:
            wrong, found = wrong or error, None
        if found:
            return found
    if wrong and not other:
        raise wrong
    return other


def choose_file(files: list[Blob], source: str) -> Blob:
    """Return the one file of an artifact that is a disk by its name; RequestError when that is not clear."""
    named = [
        one for one in files if PurePosixPath(one.title).suffix.removeprefix(".").lower() in formats.SUFFIXES
    ]
    chosen = files if len(files) == 1 else named
    if len(chosen) != 1:
        names = ", ".join(sorted(one.title or one.digest[:12] for one in chosen or files)[:5])
        hint = f"fetch them, and import one: oras pull {source.removeprefix('docker://')}"
        raise RequestError(
            f"{source} has {len(chosen or files)} files, and it is not clear which is the disk: {names}", hint
        )
    return chosen[0]


def _extract(directory: Path, manifest: Manifest, target: Path, source: str, progress: Progress) -> Path:
    folder = DiskFolder()
    for layer in manifest.layers:
        if not folder.is_closed:
            oci_files.extract_disk(
                directory, layer, target, folder, progress(f"reading layer {layer.digest[:12]}")
            )
    if len(folder.files) > 1:
        names = ", ".join(f"disk/{name}" for name in sorted(folder.files)[:5])
        hint = "a containerDisk has one disk: delete the others in its Dockerfile, or build it FROM scratch"
        raise RequestError(f"{source} has more than one file in /disk: {names}", hint)
    if not folder.files:
        raise RequestError(f"{source} has no file in /disk, so it is not a containerDisk", _NO_DISK)
    return target
