"""A copy equals its source, holes included, whichever way it is made; the sum is that of what was written."""

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pcocc_runtime.errors import RequestError
from pcocc_runtime.system import copy

MEBIBYTE = 1 << 20
Copy = Callable[[Path, Path], str]


def write_sparse(path: Path) -> bytes:
    """Write a file of a hole, data, zeros that are written, a hole and a few bytes; return its content."""
    parts = [bytes(3 * MEBIBYTE), os.urandom(MEBIBYTE + 4096), bytes(2 * MEBIBYTE), bytes(5 * MEBIBYTE), b"end"]
    with open(path, "wb") as stream:
        for number, part in enumerate(parts):
            if number in (0, 3):
                stream.seek(len(part), os.SEEK_CUR)
            else:
                stream.write(part)
    return b"".join(parts)


def by_stream(source: Path, target: Path) -> str:
    with open(source, "rb", buffering=0) as stream:
        return copy.copy_stream(stream.read, target, 0, lambda done, total: None)[1]


def by_pieces(source: Path, target: Path) -> str:
    with open(source, "rb", buffering=0) as reader, open(target, "xb", buffering=0) as writer:
        size = os.fstat(reader.fileno()).st_size
        return copy.copy_pieces(copy.read_sparse(reader.fileno(), size), writer.fileno(), lambda done: None, flush=True)[1]


def by_extents(source: Path, target: Path) -> str:
    with open(source, "rb", buffering=0) as reader, open(target, "xb", buffering=0) as writer:
        size = os.fstat(reader.fileno()).st_size
        writer.truncate(size)
        seen = list(copy.copy_extents(reader.fileno(), writer.fileno(), 0, size))
    assert seen == sorted(set(seen)) and seen[-1] == size
    return copy.hash_file(target, lambda done, total: None)


@pytest.mark.parametrize("make", [by_stream, by_pieces, by_extents])
def test_a_copy_has_the_content_and_the_holes(tmp_path: Path, make: Copy) -> None:
    content = write_sparse(tmp_path / "source")
    assert make(tmp_path / "source", tmp_path / "target") == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "target").read_bytes() == content
    assert (tmp_path / "target").stat().st_blocks <= (tmp_path / "source").stat().st_blocks < len(content) // 512 // 2


@pytest.mark.parametrize("make", [by_stream, by_pieces])
def test_a_file_that_is_all_hole_is_copied(tmp_path: Path, make: Copy) -> None:
    (tmp_path / "source").touch()
    os.truncate(tmp_path / "source", 3 * MEBIBYTE + 5)
    with open(tmp_path / "source", "rb") as stream:
        assert list(copy.copy_extents(stream.fileno(), -1, 0, 3 * MEBIBYTE + 5)) == []
    assert make(tmp_path / "source", tmp_path / "target") == hashlib.sha256(bytes(3 * MEBIBYTE + 5)).hexdigest()
    info = (tmp_path / "target").stat()
    assert (info.st_size, info.st_blocks) == (3 * MEBIBYTE + 5, 0)


@pytest.mark.parametrize("make", [by_pieces, by_extents])
def test_a_file_system_without_holes_or_copies_of_its_own_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Copy
) -> None:
    def refuse(*_arguments: object) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    content = write_sparse(tmp_path / "source")
    monkeypatch.setattr(os, "lseek", refuse)
    monkeypatch.setattr(os, "copy_file_range", refuse)
    assert make(tmp_path / "source", tmp_path / "target") == hashlib.sha256(content).hexdigest()


def test_a_disk_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    write_sparse(tmp_path / "source")
    monkeypatch.setattr(os, "copy_file_range", fail)
    with pytest.raises(OSError, match="Input/output error"):
        by_extents(tmp_path / "source", tmp_path / "target")


def test_a_source_that_is_cut_meanwhile_is_no_endless_copy(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"abc")
    with open(tmp_path / "source", "rb", buffering=0) as reader, open(tmp_path / "target", "xb", buffering=0) as writer:
        assert b"".join(copy.read_sparse(reader.fileno(), 3)) == b"abc"
        writer.truncate(10)
        with pytest.raises(OSError, match="the file has become shorter"):
            copy._copy_some(reader.fileno(), writer.fileno(), 3, 7)


def test_what_a_stream_gives_is_counted_and_limited(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    pieces = iter([b"abc", b"de", b""])
    assert copy.copy_stream(lambda size: next(pieces), tmp_path / "a", 5, lambda *one: seen.append(one), "sha512") == (
        5, hashlib.sha512(b"abcde").hexdigest()
    )  # fmt: skip
    assert seen == [(3, 5), (5, 5)] and (tmp_path / "a").read_bytes() == b"abcde"
    with pytest.raises(RequestError, match="the source does not end: it goes on after 9 bytes"):
        copy.copy_stream(lambda size: b"12345", tmp_path / "b", 0, lambda done, total: None, longest=9)
    assert (tmp_path / "b").read_bytes() == b"12345"


def test_a_sum_is_of_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="it is not a regular file"):
        copy.hash_file(tmp_path / "fifo", lambda done, total: None)
    (tmp_path / "file").write_bytes(b"x" * (MEBIBYTE + 1))
    assert (
        copy.hash_file(tmp_path / "file", lambda done, total: None, "sha512")
        == hashlib.sha512(b"x" * (MEBIBYTE + 1)).hexdigest()
    )
