"""The files of an OCI image layout, each checked against its digest: documents, and the disk in a layer's tar."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import re
import shlex
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, Any, cast

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import formats, magics, oci
from pcocc_runtime.images.oci import Blob, DiskFolder
from pcocc_runtime.progress import Advance, unwatched
from pcocc_runtime.system import copy, held, programs, regular, user_files

FETCHED = ("docker-archive", "docker-daemon")  # of skopeo's transports, beside docker://
_MAX_HEADERS = 1 << 20  # bytes of tar headers between two members: tarfile holds them in memory
# bytes of a disk, 16 TiB: a hole in a sparse member takes no room in the archive, but we read all of it
_MAX_DISK = 1 << 44
# what tarfile raises for odd headers
_UNREADABLE = (ValueError, OverflowError, LookupError, TypeError, RecursionError)


def read_document(directory: Path, name: str) -> bytes:
    """Return a document of the layout, such as index.json."""
    try:
        with regular.open_regular(directory / name) as stream:
            return stream.read(oci.MAX_DOCUMENT)
    except OSError as error:
        hint = "an OCI image layout is a directory with oci-layout, index.json and blobs/"
        raise RequestError(
            f"{held.show(str(directory / name))} cannot be read: {error.strerror}", hint
        ) from None


def read_blob(directory: Path, blob: Blob) -> bytes:
    """Return a document that is a blob."""
    data = read_document(directory, f"blobs/sha256/{blob.digest}")
    if hashlib.sha256(data).hexdigest() != blob.digest:
        raise _damaged(directory, blob)
    return data


def is_file(directory: Path, blob: Blob, of_artifact: bool) -> bool:
    """Tell whether a layer is a disk, or in an artifact any file, rather than a tar archive of a file system."""
    with _Checked(directory, blob, unwatched) as stream:
        head = stream.read(512)
    if formats.begins_like_disk(head):
        return True
    packed = _packing_of(head)
    return (
        of_artifact
        and head[257:262] != b"ustar"
        and not (packed and re.search(r"tar[+.][a-z]+\Z", blob.kind))
    )


def check_blob(directory: Path, blob: Blob, watch: Advance) -> Path:
    """Return the path of a blob whose content is right."""
    with _Checked(directory, blob, watch) as stream:
        stream.read_rest()
    if stream.digest != blob.digest:
        raise _damaged(directory, blob)
    return directory / "blobs/sha256" / blob.digest


def extract_disk(directory: Path, blob: Blob, target: Path, folder: DiskFolder, watch: Advance) -> None:
    """Tell `folder` what a layer has in /disk, and write the first file that can be seen there to `target`."""
    place = held.show(str(directory))
    try:
        with _Checked(directory, blob, watch) as packed:
            with _unpacked(packed, blob, directory) as stream:
                _extract(stream, target, folder)
                while stream.read(1 << 20):
                    pass  # to the end, where gzip keeps a checksum of its own
            packed.read_rest()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RequestError(
            f"layer {blob.digest} of {place} is damaged: {error}", "fetch the image again"
        ) from None
    except _UNREADABLE:
        text = f"layer {blob.digest} of {place} is damaged: a header in its tar archive makes no sense"
        raise RequestError(text, "fetch the image again, or ask its maker to build it again") from None
    if packed.digest != blob.digest:
        raise _damaged(directory, blob)


class _Limited:
    """A stream that must not be read beyond `end`."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._done, self.end = stream, 0, _MAX_HEADERS

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._done += len(data)
        if self._done > self.end:
            raise tarfile.ReadError("a header in its tar archive is too large")
        return data


def _members(stream: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the members of a tar archive, none of which is kept in memory."""
    limited = _Limited(stream)
    with tarfile.open(fileobj=cast(IO[bytes], limited), mode="r|") as archive:
        while (member := archive.next()) is not None:
            # else they pile up, in an archive of nothing but headers
            archive.members.clear()  # type: ignore[attr-defined]
            limited.end = archive.offset + _MAX_HEADERS  # beyond where the next member's headers begin
            yield archive, member


def _extract(stream: IO[bytes], target: Path, folder: DiskFolder) -> None:
    for archive, member in _members(stream):
        name = folder.take(member.name, member.isdir())
        if name is None:
            continue
        if member.islnk():
            hint = "let its maker copy the disk to /disk, or move it there"
            raise RequestError(f"disk/{name} in the image is a hard link to {member.linkname[:200]!r}", hint)
        if not member.isreg():
            raise RequestError(f"disk/{name} in the image is not a regular file")
        if member.size > _MAX_DISK:
            raise RequestError(
                f"disk/{name} in the image is {member.size >> 40} TiB large, more than pcocc accepts"
            )
        content = archive.extractfile(member)
        if folder.files[0] == name and content:
            target.unlink(missing_ok=True)  # an archive may have a file twice: the last one counts
            copy.copy_stream(content.read, target, member.size, unwatched)
    folder.end_layer()


def unpack_archive(path: Path, directory: Path, watch: Advance) -> None:
    """Unpack an OCI layout from a tar archive (skopeo's oci-archive, docker save), which gzip may have packed."""
    names: list[str] = []
    with user_files.explaining(str(path), "image"):
        raw = regular.open_regular(path)
    with raw:
        head = os.pread(raw.fileno(), 512, 0)
        is_packed = head.startswith(b"\x1f\x8b")
        kind = magics.find_kind(head)
        if kind and kind.is_packed and not is_packed:
            raise RequestError(f"{path} is {kind.what}, and not a tar archive", magics.cure_for(kind, str(path)))
        try:
            for archive, member in _members(
                cast(IO[bytes], gzip.GzipFile(fileobj=raw) if is_packed else raw)
            ):
                name = os.path.normpath(f"/{member.name}")[1:]
                watch(raw.tell(), os.fstat(raw.fileno()).st_size)
                names += [name] if len(names) < _MOST_NAMES else []
                content = (
                    archive.extractfile(member) if member.isreg() and _LAYOUT_FILE.fullmatch(name) else None
                )
                if content:
                    (directory / name).parent.mkdir(parents=True, exist_ok=True)
                    (directory / name).unlink(missing_ok=True)
                    copy.copy_stream(content.read, directory / name, member.size, unwatched)
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, *_UNREADABLE) as error:
            raise RequestError(
                f"{path} is not a tar archive of an OCI image layout: {error}", "see: tar -tf FILE"
            ) from None
    if not (directory / "index.json").exists():
        what, cure = describe_archive(names, str(path))
        raise RequestError(f"{path} is {what}, not one of an OCI image layout", cure)


_LAYOUT_FILE = re.compile(r"oci-layout|index\.json|blobs/sha256/[0-9a-f]{64}")
_MOST_NAMES = 1000  # names of an archive that are looked at to tell what it is


def read_archive_names(path: Path) -> list[str]:
    """Return the first names in a tar archive, none when it cannot be read."""
    names: list[str] = []
    try:
        with regular.open_regular(path) as stream:
            for _archive, member in _members(cast(IO[bytes], stream)):
                names.append(os.path.normpath(f"/{member.name}")[1:])
                if len(names) == _MOST_NAMES:
                    break
    except (OSError, tarfile.TarError, EOFError, *_UNREADABLE):
        pass
    return names


def describe_archive(names: Sequence[str], path: str) -> tuple[str, str]:
    """Return what a tar archive with these names is, and what to do with it."""
    place, disks = shlex.quote(path), [
        name for name in names if PurePath(name).suffix[1:].lower() in formats.SUFFIXES
    ]
    if "index.json" in names and "oci-layout" in names:
        return (
            "a tar archive of an OCI image layout",
            f"import it as one: pcocc image import oci-archive:{place} NAME",
        )
    inner = next((name.removesuffix("/oci-layout") for name in names if re.fullmatch("[^/]+/oci-layout", name)), "")
    if inner:
        place_of_layout = shlex.quote(f"oci:{inner}")
        return (
            "a tar archive of a directory around an OCI image layout",
            f"unpack it, and import the directory: tar -xf {place} && pcocc image import {place_of_layout} NAME",
        )
    if "manifest.json" in names:
        return (
            "a tar archive of 'docker save'",
            f"import it as one, which takes the program skopeo: pcocc image import docker-archive:{place} NAME",
        )
    unpack = f"unpack it and import the disk inside: tar -xf {place}"
    if any(name.lower().endswith(".ovf") for name in names):
        return "an OVA, a tar archive of a machine", unpack + (
            f"; pcocc image import {shlex.quote(disks[0])} NAME" if disks else ""
        )
    return "a tar archive, as an OVA is", unpack + (f" {shlex.quote(disks[0])}" if disks else "")


def _packing_of(head: bytes) -> str:
    """Return how a layer is compressed: '', gzip, zstd, or another word that no layer should be compressed with."""
    kind = magics.find_kind(head)
    return kind.what.removeprefix("compressed with ") if kind and kind.is_packed else ""


def _damaged(directory: Path, blob: Blob) -> RequestError:
    reason = "its length or its checksum is wrong"
    return RequestError(
        f"blob {blob.digest} of {held.show(str(directory))} is damaged: {reason}", "fetch the image again"
    )


class _Checked:
    """A blob's file that computes the sum of what is read from it."""

    def __init__(self, directory: Path, blob: Blob, watch: Advance) -> None:
        path = directory / "blobs/sha256" / blob.digest
        try:
            self._stream = regular.open_regular(path)
        except OSError as error:
            raise RequestError(
                f"{held.show(str(path))} cannot be read: {error.strerror}", "fetch the image again"
            ) from None
        if os.fstat(self._stream.fileno()).st_size != blob.size:
            self._stream.close()
            raise _damaged(directory, blob)
        self._machine = hashlib.sha256()
        self._done, self._size, self._watch = 0, blob.size, watch

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._machine.update(data)
        self._done += len(data)
        self._watch(self._done, self._size)
        return data

    def read_rest(self) -> None:
        """Read to the end, to have the sum of all."""
        while self.read(1 << 20):
            pass

    def peek(self, size: int) -> bytes:
        """Return the first bytes of the file."""
        return os.pread(self._stream.fileno(), size, 0)

    def rewound(self) -> IO[bytes]:
        """Return the file, back at its beginning."""
        self._stream.seek(0)
        return self._stream

    @property
    def digest(self) -> str:
        return self._machine.hexdigest()

    def __enter__(self) -> _Checked:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stream.close()


@contextmanager
def _unpacked(packed: _Checked, blob: Blob, directory: Path) -> Iterator[Any]:
    # the content counts: media types of some builders are wrong
    packing = _packing_of(packed.peek(512)) or blob.packing
    if packing == "gzip":
        with gzip.GzipFile(fileobj=cast(Any, packed), mode="rb") as stream:
            yield stream
    elif packing == "zstd":
        packed.read_rest()  # the program zstd reads the file itself, so the sum comes first
        if packed.digest != blob.digest:
            raise _damaged(directory, blob)
        hint = "install zstd, or push the image with gzip layers"
        with programs.open_filter(["zstd", "-dcq"], packed.rewound(), hint) as stream:
            yield stream
    elif packing:
        hint = "let its maker push it again with gzip or zstd layers"
        text = f"layer {blob.digest} is compressed with {packing}, which no layer of an image may be"
        raise RequestError(text, hint)
    else:
        yield packed


def fetch_with_skopeo(reference: str, target: Path) -> None:
    """Copy an image from a registry into an OCI layout."""
    hint = "install skopeo, or fetch the image elsewhere and import it from oci:DIR"
    status, said = programs.run_watched(
        ["skopeo", "copy", "--quiet", reference, f"oci:{target}:image"], hint=hint
    )
    if status:
        text = held.show(_plain(said[-1])) if said else f"skopeo ended with status {status}"
        full = next(
            (code for code in (errno.ENOSPC, errno.EDQUOT) if os.strerror(code).lower() in text.lower()), None
        )
        if full and held.show(str(target)) in text:
            raise OSError(full, os.strerror(full), str(target))
        hint = (
            "free space in the directory it was writing to"
            if full
            else "if the registry asks for a login: skopeo login"
        )
        raise RequestError(f"{reference} could not be fetched: {text}", hint)


def _plain(line: str) -> str:
    """Return the message in a line of skopeo's log, which looks like time="..." level=fatal msg="..."."""
    match = re.search(r'msg="((?:[^"\\]|\\.)*)"', line)
    return re.sub(r"\\(.)", r"\1", match[1]) if match else line
