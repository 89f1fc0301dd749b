"""Importing files that are incomplete, lead elsewhere, or are no disks: each is refused, with the reason."""

import gzip
import hashlib
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pcocc_runtime.images import qcow2
from pcocc_runtime.images import qemu_img as qemu_image
from pcocc_runtime.images.references import Repo
from tests.images.disks import TEXT, Ran, content, disk, leftovers, listing, make_disk, qemu_img, write_raw

Pcocc = Callable[..., Ran]


def overlay(path: Path, backing: str, form: str = "qcow2") -> None:
    qemu_img("create", "-q", "-f", form, "-u", "-b", backing, "-F", "raw" if form == "qcow2" else form, path, "1M")


def bad_qcow2(tmp_path: Path) -> None:
    overlay(tmp_path / "bad", "/etc/passwd")


def json_backing(tmp_path: Path) -> None:
    overlay(tmp_path / "bad", 'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}')


def external_data(tmp_path: Path) -> None:
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path}/data,data_file_raw=on", tmp_path / "bad", "1M")


def vmdk_parent(tmp_path: Path) -> None:
    make_disk(tmp_path / "base", "vmdk")
    overlay(tmp_path / "bad", str(tmp_path / "base"), "vmdk")


def vmdk_flat(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", tmp_path / "raw", tmp_path / "bad")


def vmdk_hidden_extent(tmp_path: Path) -> None:
    text = (
        b'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 8 FLAT "/etc/passwd" 0\n'
    )
    (tmp_path / "bad").write_bytes(
        b"KDMV" + struct.pack("<IIQQQQ", 1, 3, 0, 128, 1, 20).ljust(508, b"\0") + text.ljust(20 * 512, b"\0")
    )


def vhd_parent(tmp_path: Path) -> None:
    data = bytearray(make_disk(tmp_path / "whole", "vpc").read_bytes())
    data[-512 + 60 : -512 + 64] = (4).to_bytes(4, "big")
    (tmp_path / "bad").write_bytes(data)


def gzipped(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(gzip.compress(make_disk(tmp_path / "a").read_bytes()))


def vhd_cut(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", used=1 << 20)
    qemu_img("convert", "-f", "raw", "-O", "vpc", tmp_path / "raw", tmp_path / "bad")
    os.truncate(tmp_path / "bad", 4000 * 128)


def tar(tmp_path: Path) -> None:
    write_raw(tmp_path / "disk")
    subprocess.run(["tar", "-cf", tmp_path / "bad", "-C", tmp_path, "disk"], check=True)


def odd_raw(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"hello\n")


def directory(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()


def empty(tmp_path: Path) -> None:
    (tmp_path / "bad").touch()


def nothing(_tmp_path: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (bad_qcow2, "has a backing file, '/etc/passwd': it is only a part of a disk"),
        (json_backing, "has the backing file 'json:"),
        (external_data, "keeps its data in another file"),
        (vmdk_parent, "has a parent, another VMDK image"),
        (vmdk_flat, "is the descriptor of a VMDK image whose data are in other files"),
        (vmdk_hidden_extent, "is a VMDK image whose data are in other files"),
        (vhd_parent, "has a parent, another VHD image"),
        (gzipped, "the file is compressed with gzip"),
        (vhd_cut, "is not a sound vpc image: its last 512 bytes are not a footer: it was cut short"),
        (tar, "cannot be imported: the file is a tar archive, as an OVA is"),
        (odd_raw, "its 6 bytes are not a whole number of sectors"),
        (directory, "is not a regular file"),
        (empty, "is not a sound raw image: it is empty"),
        (nothing, "cannot be read: No such file or directory"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_what_is_not_a_disk_in_itself_is_refused(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    make(tmp_path)
    assert said in pcocc("image", "import", "bad", "a", ok=False).err
    assert listing(repo) == {} and leftovers(repo) == []


@pytest.mark.parametrize("form", ["qcow2", "vmdk", "vdi", "vhdx", "vpc"])
@pytest.mark.parametrize("part", [0.3, 0.7, 0.99])
def test_a_truncated_image_is_refused(pcocc: Pcocc, repo: Repo, tmp_path: Path, form: str, part: float) -> None:
    data = make_disk(tmp_path / "whole", form, used=1 << 20).read_bytes()
    (tmp_path / "bad").write_bytes(data[: int(len(data) * part) // 512 * 512])
    pcocc("image", "import", "--format", form, "bad", "a", ok=False)
    assert listing(repo) == {} and leftovers(repo) == []


@pytest.mark.parametrize("options", [["-c"], ["-c", "-o", "extended_l2=on"], [], ["-o", "extended_l2=on"], ["-o", "compat=0.10"]])
@pytest.mark.parametrize("lost", [512, 4096, 70000])
def test_a_qcow2_image_whose_last_data_are_missing_is_refused(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, options: list[str], lost: int
) -> None:
    """`qemu-img check` finds nothing wrong with most of these, and QEMU reads zeros, or what they unpack to."""
    (tmp_path / "raw").write_bytes(TEXT)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, tmp_path / "raw", tmp_path / "bad")
    os.truncate(tmp_path / "bad", (tmp_path / "bad").stat().st_size - lost)
    assert "is not a sound qcow2 image: " in pcocc("image", "import", "bad", "a", ok=False).err
    assert listing(repo) == {} and leftovers(repo) == []


def test_a_raw_disk_that_looks_like_another_format_can_be_told_apart(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    overlay(tmp_path / "forged", "/etc/passwd")  # a guest may write such a header to the start of its disk
    data = (tmp_path / "forged").read_bytes().ljust(1 << 20, b"\0")
    (tmp_path / "disk.raw").write_bytes(data)
    assert "has a backing file" in pcocc("image", "import", "disk.raw", "a", ok=False).err
    pcocc("image", "import", "--format", "raw", "disk.raw", "a")
    assert content(disk(repo, "a")) == hashlib.sha256(data).hexdigest()
    header = qcow2.parse_header(disk(repo, "a").read_bytes()[: qcow2.HEADER_SIZE], "a")
    assert header.backing_file is None and header.size == 1 << 20


@pytest.mark.parametrize("form", ["qcow2", "vmdk", "vdi", "vhdx", "vpc"])
def test_a_format_that_is_told_wrongly_is_refused(pcocc: Pcocc, repo: Repo, tmp_path: Path, form: str) -> None:
    write_raw(tmp_path / "raw")
    pcocc("image", "import", "--format", form, "raw", "a", ok=False)
    assert (qemu_image.find_damage(tmp_path / "raw", form, 1 << 20) or "").count("Could not open") < 2
    assert listing(repo) == {}
