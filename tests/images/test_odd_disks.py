"""Importing images that programs have left open, which are repaired in a copy; and files that are no disks by themselves,
for which the refusal says what they are.
"""

import gzip
import hashlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pcocc_runtime.errors import RequestError
from pcocc_runtime.images import magics, qcow2, references
from pcocc_runtime.images.references import Repo
from tests.images import odd_disks
from tests.images.disks import (
    Ran,
    as_stdin,
    content,
    disk,
    leftovers,
    listing,
    make_disk,
    qemu_img,
    raw_sum,
    write_raw,
)

Pcocc = Callable[..., Ran]
OPEN = "was not closed by whoever wrote to it last: it is imported from a repaired copy"


@pytest.mark.parametrize("make", [odd_disks.left_open_qcow2, odd_disks.left_open_vhdx])
def test_what_was_left_open_is_imported_after_a_repair_in_a_copy(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    source = make(tmp_path / "open")
    before = source.read_bytes()
    data = bytearray(8 << 20)
    data[: 1 << 20] = b"\5" * (1 << 20)
    if "qcow2" in make.__name__:
        data[3 << 20 : (3 << 20) + 65536] = b"\6" * 65536
    for words in (("open", "a"), ("-", "b")):
        with as_stdin(source):
            assert OPEN in pcocc("image", "import", *words).err
        assert content(disk(repo, words[1])) == hashlib.sha256(data).hexdigest()
    assert source.read_bytes() == before and leftovers(repo) == []
    pcocc("image", "verify")


def test_what_was_left_open_and_cannot_be_repaired_is_told(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    source = odd_disks.left_open_qcow2(tmp_path / "open")
    data = bytearray(source.read_bytes())
    data[40:48] = (1 << 40).to_bytes(8, "big")  # where the L1 table is
    source.write_bytes(data)
    assert (
        "open was left open by whoever wrote to it last, and cannot be repaired: " in pcocc(
            "image", "import", "open", "a", ok=False
        ).err
    )
    assert listing(repo) == {} and leftovers(repo) == []


@pytest.mark.parametrize("how", ["type", "link", "parent"])
def test_a_vdi_with_a_parent_is_a_part_of_a_disk(pcocc: Pcocc, repo: Repo, tmp_path: Path, how: str) -> None:
    odd_disks.vdi_with_parent(tmp_path / "a.vdi", how=how)
    said = pcocc("image", "import", "a.vdi", "a", ok=False).err
    assert "has a parent, another VDI image: it is only a part of a disk" in said and "VBoxManage clonemedium disk" in said


def test_a_vhdx_with_a_parent_is_a_part_of_a_disk(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    odd_disks.vhdx_with_parent(tmp_path / "a.vhdx")
    said = pcocc("image", "import", "a.vhdx", "a", ok=False).err
    assert "has a parent, another VHDX image: it is only a part of a disk" in said and "Convert-VHD -Path" in said


@pytest.mark.parametrize(("subformat", "extent"), [("twoGbMaxExtentSparse", "s001"), ("twoGbMaxExtentFlat", "f001")])
def test_an_extent_of_a_vmdk_is_a_part_and_the_cure_works(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, subformat: str, extent: str
) -> None:
    descriptor = odd_disks.split_vmdk(tmp_path, subformat)
    part, whole = descriptor.with_name(f"disk-{extent}.vmdk"), hashlib.sha256(b"\1" * (1 << 20)).hexdigest()
    for source, name in ((part, "one extent of a VMDK image in several files"), (descriptor, "the descriptor of a VMDK image")):
        said = pcocc("image", "import", str(source), "a", ok=False).err
        assert name in said and listing(repo) == {}
        cure(said, tmp_path)
        pcocc("image", "import", "--update", "NEW.qcow2", name.split()[1])
        assert content(disk(repo, name.split()[1])) == whole
        for path in Path(repo.path).glob("*/*@*"):
            path.unlink()
        for path in Path(repo.path).glob("data/*/*"):
            path.unlink()


def cure(said: str, directory: Path) -> None:
    """Run the qemu-img command that a hint names."""
    command = re.search(r"(qemu-img convert [^;]*NEW\.qcow2)", said)
    assert command, said
    subprocess.run(command[1], shell=True, cwd=directory, check=True)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (odd_disks.qcow1, "a qcow image of version 1"),
        (odd_disks.parallels, "a Parallels disk (.hds)"),
    ],
)
def test_a_disk_of_another_format_is_named_and_the_cure_works(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, make: Callable[[Path], Path], name: str
) -> None:
    make(tmp_path / "it's old")
    said = pcocc("image", "import", "it's old", "a", ok=False).err
    assert name in said and listing(repo) == {}
    cure(said, tmp_path)
    pcocc("image", "import", "NEW.qcow2", "a")
    assert content(disk(repo, "a")) == raw_sum()


OLD_TAR = b"disk.img".ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"00000001000\0" + b"00000000000\0" + b"006145\0 0"
NAMED = [
    (b"hsqs", 0, "a squashfs file system"), (b"WithouFreSpacExt", 0, "a Parallels disk"), (b"QED\0", 0, "a QED image"),
    (b"VMA\0", 0, "a backup of Proxmox VE"), (b"HdrS", 514, "a Linux kernel"),
    (b"<!DOCTYPE html>", 0, "a text, such as a web server's page"),
    (b"\x7fELF", 0, "a program"), (b"\x3a\xff\x26\xed", 0, "a sparse image of Android"),
    (b"koly", -512, "a disk image of macOS"),
    (b"\xe2\xe1\xf5\xe0", 1024, "an EROFS file system"),
    (b"version https://git-lfs.github.com", 0, "a pointer of Git LFS"),
    (b"SKUL\xba\xbe", 0, "a LUKS container"), (b"-FVE-FS-", 3, "a disk of BitLocker"), (b"070707", 0, "a cpio archive"),
    (b"EVF2\r\n\x81\0", 0, "an EnCase image"), (b"sprs", 0, "a sparse disk image of macOS (sparseimage)"),
    (b"shdw\0\0\0\1", 0, "a sparse disk image of macOS (ASIF)"),
    (b"\xbe\xba\xfe\xca\0\0\0\0", 0, "a part of a VMDK image (seSparse)"),
    (b"\xd0\xbe\xd2\xbe", 0, "the state of a machine of VMware"), (b"KDUMP   ", 0, "what a kernel's memory was"),
    (b"xFSdump0", 0, "a backup of xfsdump"), (b"\x6c\xea\0\0", 24, "a backup of dump"),
    (b"\xd0\x0d\xfe\xed", 0, "a program that firmware starts"), (b"\x85\x19\3\x20", 0, "an image of flash memory (JFFS2)"),
    (b"partclone-image", 0, "a backup of partclone"), (b"btrfs-stream\0", 0, "a stream of btrfs send"),
    (b"\xac\xcb\xba\xf5\2\0\0\0", 8, "a stream of zfs send"), (b"QEVM\0\0\0\3", 0, "the state of a machine of QEMU"),
    (b"LibvirtQemudSave", 0, "the state of a machine of libvirt"), (b"ANDROID!", 0, "a program that firmware starts"),
    (b"MZ".ljust(60, b"\0") + b"\x80\0\0\0" + bytes(64) + b"PE\0\0", 0, "a program that firmware starts"),
    (b"ARM\x64", 56, "a Linux kernel"), (b"vhdsfile", 0, "a set of VHDX images"), (b"-rom1fs-", 0, "a romfs file system"),
    (OLD_TAR, 0, "a tar archive"), (b"\x71\xc7", 0, "a cpio archive"), (b"GIF89a", 0, "a picture"),
    (b"d13:announce-list", 0, "a torrent"), (b"RIFF", 0, "a sound, a film or a picture"),
]  # fmt: skip


@pytest.mark.parametrize(("magic", "at", "name"), NAMED, ids=[name for _magic, _at, name in NAMED])
def test_what_has_a_known_magic_is_not_stored_in_silence(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, magic: bytes, at: int, name: str
) -> None:
    data = bytearray(1 << 20)
    at %= len(data)
    data[at : at + len(magic)] = magic
    (tmp_path / "odd").write_bytes(data)
    said = pcocc("image", "import", "odd", "a", ok=False).err
    assert f"odd cannot be imported: the file is {name}" in said and "hint: " in said and "'--format raw'" in said
    assert listing(repo) == {}
    pcocc("image", "import", "--format", "raw", "odd", "a")
    assert content(disk(repo, "a")) == hashlib.sha256(data).hexdigest()


TEXTS = [
    (b"# VMware's\nversion=1\nCID=fffffffe\n", "the descriptor of a VMDK image"), (b"404 Not Found\n", "a text"),
    (b"\r\n# Disk DescriptorFile\r\nversion=1\r\n", "the descriptor of a VMDK image"), (b'{"error": 7}', "a text"),
]


@pytest.mark.parametrize(("begin", "name"), TEXTS)
def test_a_text_is_not_stored_in_silence(pcocc: Pcocc, repo: Repo, tmp_path: Path, begin: bytes, name: str) -> None:
    (tmp_path / "odd").write_bytes(begin.ljust(1024, b" "))
    assert f"odd cannot be imported: the file is {name}" in pcocc("image", "import", "odd", "a", ok=False).err
    assert listing(repo) == {}
    (tmp_path / "odd").write_bytes(begin.ljust(1024, b" ").ljust(1 << 20, b"\0"))
    pcocc("image", "import", "odd", "a")  # a disk may begin with a text


PACKED = [(b"\x5d\0\0\x80\0", "lzma"), (b"\x50\x2a\x4d\x18\4\0\0\0", "zstd"), (b"\x02\x21\x4c\x18", "lz4"), (b"PK\7\x08", "zip"),
          (b"LRZI", "lrzip"), (b"MSCF\0\0\0\0", "cabinet"), (b"\xff\6\0\0sNaPpY", "snappy"), (b"xar!", "xar")]  # fmt: skip


@pytest.mark.parametrize(("magic", "packer"), PACKED)
def test_what_is_packed_is_told_whatever_its_length(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, magic: bytes, packer: str
) -> None:
    for size in (1 << 20, 1000003):
        (tmp_path / "odd").write_bytes(magic.ljust(size, b"x"))
        said = pcocc("image", "import", "odd", "a", ok=False).err
        assert f"the file is compressed with {packer}" in said and "raw" not in said, said
    assert listing(repo) == {}


def test_a_sif_is_named(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    odd_disks.sif(tmp_path / "a.sif")
    said = pcocc("image", "import", "a.sif", "a", ok=False).err
    assert (
        "the file is a SIF image, a container of Apptainer or Singularity" in said
        and "Run it in a VM that has Apptainer" in said
    )


@pytest.mark.parametrize(
    ("at", "magic", "what"),
    [
        (1080, b"\x53\xef", "an ext file system"), (0, b"XFSB", "an XFS file system"), (4086, b"SWAPSPACE2", "swap space"),
        (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"), (1040, b"\x8f\x13", "a Minix file system"),
        (512, b"LABELONE", "a physical volume of LVM"),
    ],
)  # fmt: skip
def test_a_disk_without_partitions_is_stored_and_told(
    pcocc: Pcocc, repo: Repo, tmp_path: Path, at: int, magic: bytes, what: str
) -> None:
    data = bytearray(1 << 20)
    data[at : at + len(magic)] = magic
    (tmp_path / "bare").write_bytes(data)
    said = pcocc("image", "import", "bare", "a").err
    assert f"bare is {what} without partitions or a boot loader, and is stored as a raw disk" in said
    assert "is stored" not in pcocc("image", "import", "--format=raw", "bare", "b").err
    data[510:512] = b"\x55\xaa"
    (tmp_path / "booted").write_bytes(data)
    assert "is stored" not in pcocc("image", "import", "booted", "c").err
    assert content(disk(repo, "c")) == hashlib.sha256(data).hexdigest()


def test_an_iso_is_stored_and_told(pcocc: Pcocc, repo: Repo, tmp_path: Path) -> None:
    data = bytearray(1 << 20)
    data[32768:32774] = b"\1CD001"
    (tmp_path / "a.iso").write_bytes(data)
    assert "a.iso is an ISO 9660 image, as of a CD, and is stored as a raw disk" in pcocc("image", "import", "a.iso", "a").err


@pytest.mark.parametrize(
    ("files", "name", "hint"),
    [
        (
            {"a.ovf": b"<?xml", "a-disk1.vmdk": b"KDMV"}, "an OVA, a tar archive of a machine",
            "tar -xf {}; pcocc image import a-disk1.vmdk NAME",
        ),
        (
            {"oci-layout": b"{}", "index.json": b"{}"}, "a tar archive of an OCI image layout",
            "pcocc image import oci-archive:{} NAME",
        ),
        (
            {"manifest.json": b"[]", "x/layer.tar": b""}, "a tar archive of 'docker save'",
            "pcocc image import docker-archive:{} NAME",
        ),
        ({"deep/disk.qcow2": b""}, "a tar archive, as an OVA is", "tar -xf {} deep/disk.qcow2"),
    ],
)
def test_an_archive_is_named_by_what_is_in_it(
    pcocc: Pcocc, tmp_path: Path, files: dict[str, bytes], name: str, hint: str
) -> None:
    odd_disks.tar_of(tmp_path / "a.tar", files)
    said = pcocc("image", "import", "a.tar", "a", ok=False).err
    assert f"the file is {name}\n" in said and hint.format(tmp_path / "a.tar") in said


def test_a_compressed_boot_image_gets_no_advice_that_makes_garbage(tmp_path: Path) -> None:
    packed = gzip.compress(make_disk(tmp_path / "a.qcow2").read_bytes())
    with pytest.raises(RequestError, match="it looks like compressed with gzip") as caught:
        qcow2.parse_header(packed[: qcow2.HEADER_SIZE], "/a.gz")
    assert caught.value.hint == "unpack it first: gzip -dc /a.gz >DISK"
    with pytest.raises(RequestError) as caught:
        qcow2.parse_header(write_raw(tmp_path / "raw").read_bytes(), "/raw")
    assert caught.value.hint == "import it: pcocc image import /raw NAME"


def test_every_packed_kind_has_a_command_and_no_word_of_raw() -> None:
    packed = [kind for _at, _magic, kind in magics._KINDS if kind.is_packed]
    assert len(packed) > 8
    for kind in packed:
        assert re.search(r" a b|'a b'", magics.cure_for(kind, "a b")) and "raw" not in kind.cure


def folders(tmp_path: Path) -> list[tuple[str, str]]:
    """Make directories of all kinds; return their names and what the refusal must say."""
    for name in ("old", "layout", "dir", "hdd", "one", "many", "none"):
        (tmp_path / name).mkdir()
    for name in (
        "old/image", "old/image-rev1", "layout/oci-layout", "layout/index.json", "dir/manifest.json", "dir/version",
        "hdd/x.hds", "one/a.qcow2", "many/a.qcow2", "many/b.vmdk",
    ):
        (tmp_path / name).touch()
    return [
        ("old", "as pcocc 0.7 kept images\nhint: import its disk: pcocc image import {}/image-rev1 NAME"),
        ("layout", "an OCI image layout\nhint: import it as one: pcocc image import oci:{} NAME"),
        ("dir", "hint: make a layout of it: skopeo copy dir:{} oci:DIR:image"),
        ("hdd", "qemu-img convert -f parallels -O qcow2 {}/x.hds NEW.qcow2"),
        ("one", "hint: import the disk in it: pcocc image import {}/a.qcow2 NAME"),
        ("many", "hint: name a file in it, such as a.qcow2, b.vmdk: pcocc image import FILE NAME"),
        ("none", "is not a regular file, but a directory\nhint: name a file in it"),
    ]  # fmt: skip


def test_a_directory_says_how_to_import_what_is_in_it(pcocc: Pcocc, tmp_path: Path) -> None:
    for name, said in folders(tmp_path):
        assert said.format(tmp_path / name) in pcocc("image", "import", name, "a", ok=False).err


@pytest.mark.parametrize(
    "text",
    ["docker://quay.io/a/b:1", "https://u:secret@h/x.qcow2?secret", "oci:some/dir:1", "oci-archive:/a.tar", "s3://b/c"],
)
def test_a_source_is_not_an_image_yet(text: str) -> None:
    with pytest.raises(RequestError, match="is neither an image in a repository nor a file") as caught:
        references.parse_reference(text)
    assert (
        str(caught.value.hint).startswith("import it first: pcocc image import ")
        and "secret" not in f"{caught.value}{caught.value.hint}"
    )


def test_the_refusal_of_a_name_lists_the_characters() -> None:
    for parse in (references.parse_reference, references.parse_new_reference):
        with pytest.raises(RequestError) as caught:
            parse("a b")
        assert "letters, digits, '_', '.' and '-'" in str(caught.value.hint)


def test_the_form_of_pcocc_0_6_is_told(pcocc: Pcocc, tmp_path: Path) -> None:
    said = pcocc("image", "import", "-t", "raw", "vm", "my disk", "b", ok=False).err
    assert said.endswith("hint: pcocc 0.6 took the kind of image first; now write: pcocc image import -t raw 'my disk' b\n")
    assert "hint: pcocc --help" in pcocc("image", "import", "a", "b", "c", ok=False).err
    assert qemu_img("--version")
