"""The files of an OCI image layout: documents, and the disk in a layer's tar archive; each is checked against its digest."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import oci
from pcocc_runtime.images.oci import Blob
from pcocc_runtime.progress import Advance
from pcocc_runtime.system import copy, files, process

_MAX_HEADERS = 1 << 20  # bytes of tar headers between two members: tarfile holds them in memory
_MAX_DISK = 1 << 44  # bytes of a disk, 16 TiB: a hole in a sparse member takes no room in the archive, but we read all of it
_UNREADABLE = (ValueError, OverflowError, LookupError, TypeError, RecursionError)  # what tarfile raises for odd headers


def read_document(directory: Path, name: str) -> bytes:
    """Return a document of the layout, such as index.json."""
    try:
        with files.open_regular(directory / name) as stream:
            return stream.read(oci.MAX_DOCUMENT)
    except OSError as error:
        hint = "an OCI image layout is a directory with oci-layout, index.json and blobs/"
        raise RequestError(f"{directory / name} cannot be read: {error.strerror}", hint) from None


def read_blob(directory: Path, blob: Blob) -> bytes:
    """Return a document that is a blob."""
    data = read_document(directory, f"blobs/sha256/{blob.digest}")
    if hashlib.sha256(data).hexdigest() != blob.digest:
        raise _damaged(directory, blob)
    return data


def extract_disk(directory: Path, blob: Blob, target: Path, watch: Advance) -> bool:
    """Write the disk in a layer to `target`; return False when the layer has none."""
    try:
        with _Checked(directory, blob, watch) as packed:
            with _unpacked(packed, blob, directory) as stream:
                names = _extract(stream, target)
                while stream.read(1 << 20):
                    pass  # to the end, where gzip keeps a checksum of its own
            packed.read_rest()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RequestError(f"layer {blob.digest} of {directory} is damaged: {error}", "fetch the image again") from None
    except _UNREADABLE:
        text = f"layer {blob.digest} of {directory} is damaged: a header in its tar archive makes no sense"
        raise RequestError(text, "fetch the image again, or ask its maker to build it again") from None
    if packed.digest != blob.digest:
        raise _damaged(directory, blob)
    if len(names) > 1:
        raise RequestError(f"{directory} has more than one file in /disk: {', '.join(sorted(names)[:5])}")
    return bool(names)


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


def _extract(stream: IO[bytes], target: Path) -> list[str]:
    names: list[str] = []
    limited = _Limited(stream)
    with tarfile.open(fileobj=cast(IO[bytes], limited), mode="r|") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # else they pile up, in an archive of nothing but headers
            limited.end = archive.offset + _MAX_HEADERS  # beyond where the next member's headers begin
            if not oci.is_disk(member.name) or member.isdir() or oci.is_whiteout(member.name):
                continue
            if not member.isreg():
                raise RequestError(f"{member.name} in the image is not a regular file")
            if member.size > _MAX_DISK:
                raise RequestError(f"{member.name} in the image is {member.size >> 40} TiB large, more than pcocc accepts")
            names.append(member.name)
            content = archive.extractfile(member)
            if len(names) == 1 and content:
                copy.copy_stream(content.read, target, member.size, lambda done, total: None)
    return names


def _damaged(directory: Path, blob: Blob) -> RequestError:
    reason = "its length or its checksum is wrong"
    return RequestError(f"blob {blob.digest} of {directory} is damaged: {reason}", "fetch the image again")


class _Checked:
    """A blob's file that computes the sum of what is read from it."""

    def __init__(self, directory: Path, blob: Blob, watch: Advance) -> None:
        path = directory / "blobs/sha256" / blob.digest
        try:
            self._stream = files.open_regular(path)
        except OSError as error:
            raise RequestError(f"{path} cannot be read: {error.strerror}", "fetch the image again") from None
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
    if blob.packing == "gzip":
        with gzip.GzipFile(fileobj=cast(Any, packed), mode="rb") as stream:
            yield stream
    elif blob.packing == "zstd":
        packed.read_rest()  # the program zstd reads the file itself, so the sum comes first
        if packed.digest != blob.digest:
            raise _damaged(directory, blob)
        hint = "install zstd, or push the image with gzip layers"
        with process.open_filter(["zstd", "-dcq"], packed.rewound(), hint) as stream:
            yield stream
    else:
        yield packed


def fetch_with_skopeo(reference: str, target: Path) -> None:
    """Copy an image from a registry into an OCI layout."""
    hint = "install skopeo, or fetch the image elsewhere and import it from oci:DIR"
    status, said = process.run_watched(["skopeo", "copy", "--quiet", reference, f"oci:{target}:image"], hint=hint)
    if status:
        text = _plain(said[-1]) if said else f"skopeo ended with status {status}"
        full = next((code for code in (errno.ENOSPC, errno.EDQUOT) if os.strerror(code).lower() in text.lower()), None)
        if full and str(target) in text:
            raise OSError(full, os.strerror(full), str(target))
        hint = "free space in the directory it was writing to" if full else "if the registry asks for a login: skopeo login"
        raise RequestError(f"{reference} could not be fetched: {text}", hint)


def _plain(line: str) -> str:
    """Return the message in a line of skopeo's log, which looks like time="..." level=fatal msg="..."."""
    match = re.search(r'msg="((?:[^"\\]|\\.)*)"', line)
    return re.sub(r"\\(.)", r"\1", match[1]) if match else line
