"""Repositories on file systems that are full or read-only."""

import errno
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from pcocc_runtime.images import images, qemu_img
from pcocc_runtime.images.references import Repo
from tests.images.disks import Ran, as_stdin, content, leftovers, listing, make_disk, write_raw

Pcocc = Callable[..., Ran]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 4 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "pcocc-test", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def crowded(pcocc: Pcocc, other: Repo, small: Path, tmp_path: Path) -> Repo:
    """Return a repository in 4 MiB with an image of one."""
    make_disk(tmp_path / "a.qcow2", used=1 << 20)
    repo = Repo("small", str(small / "images"))
    (tmp_path / "etc/repos.yaml").write_text(f"repos: [{{name: small, path: {repo.path}}}, {{name: site, path: {other.path}}}]")
    pcocc("image", "import", "a.qcow2", "a")
    return repo


def test_what_does_not_fit_is_refused_before_it_is_written(pcocc: Pcocc, crowded: Repo, tmp_path: Path) -> None:
    before = listing(crowded)
    write_raw(tmp_path / "big.raw", size=8 << 20, used=8 << 20)
    said = pcocc("image", "import", "big.raw", "big", ok=False).err
    assert re.search(r"big.raw needs 8 MiB, and the file system of repository 'small' has room for [123]", said)
    assert listing(crowded) == before and leftovers(crowded) == []
    pcocc("image", "import", "big.raw", "site:big")
    assert re.search(
        r"needs 8 MiB, and the file system of \S+/small has room",
        pcocc("image", "export", "site:big", "small/x.raw", ok=False).err,
    )
    assert sorted(os.listdir(tmp_path / "small")) == ["images"]


def test_sparse_images_larger_than_the_file_system_fit(pcocc: Pcocc, crowded: Repo, tmp_path: Path) -> None:
    with open(write_raw(tmp_path / "sparse.raw", 5, size=1 << 20), "r+b") as stream:
        stream.truncate(1 << 40)
    pcocc("image", "import", "sparse.raw", "sparse")
    pcocc("image", "resize", "sparse", "2T")
    assert "2T" in pcocc("image", "list", "sparse").out


@pytest.mark.parametrize(
    "argv",
    [["import", "--compress", "big.raw", "b"], ["import", "-", "b"], ["copy", "site:big", "b"], ["copy", "site:many", "b"]],
)
def test_a_file_system_that_fills_up_is_told_and_nothing_stays(
    pcocc: Pcocc, crowded: Repo, tmp_path: Path, argv: list[str]
) -> None:
    before = listing(crowded)
    write_raw(tmp_path / "big.raw", size=8 << 20, used=8 << 20)
    pcocc("image", "import", "big.raw", "site:big")
    make_disk(tmp_path / "half.qcow2", used=1 << 20, seed=9)
    pcocc("image", "import", "half.qcow2", "site:many")
    if argv[1] == "site:many":
        (tmp_path / "small/filler").write_bytes(bytes(2 << 20))
    with as_stdin(tmp_path / "big.raw"):
        said = pcocc("image", *argv, ok=False).err
    assert "repository 'small'" in said and " is full: No space left on device" in said
    assert listing(crowded) == before and leftovers(crowded) == []


def test_without_any_room_one_can_still_read_and_delete(pcocc: Pcocc, crowded: Repo, small: Path, mocker: MockerFixture) -> None:
    with open(small / "filler", "wb", buffering=0) as stream, pytest.raises(OSError):
        while True:
            stream.write(bytes(4096))
    assert "is full" in pcocc("image", "resize", "a", "1G", ok=False).err
    pcocc("image", "verify")
    mocker.patch("pathlib.Path.touch", side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))  # no inode either
    assert "1 layer removed" in pcocc("image", "delete", "a").out
    assert listing(crowded) == {}


def test_a_read_only_file_system_is_read(pcocc: Pcocc, crowded: Repo, small: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    before = listing(crowded)
    pcocc("image", "list")
    pcocc("image", "verify")
    pcocc("image", "export", "a", "out.qcow2")
    pcocc("image", "copy", "a", "site:a")
    boot, _name = images.find_boot_disk("small:a", [crowded])  # and VMs run from it
    assert qemu_img.create_overlay(boot, tmp_path / "overlay.qcow2") and content(tmp_path / "overlay.qcow2") == content(
        Path(boot)
    )
    assert "read-only" in pcocc("image", "repo", "list").out
    for argv in (["import", "a.qcow2", "b"], ["copy", "a", "b"], ["delete", "a"], ["resize", "a", "2M"], ["repo", "gc"]):
        said = pcocc("image", *argv, ok=False).err
        assert "you may not change" in said and ": Read-only file system" in said
    assert "cannot be written: Read-only file system" in pcocc("image", "export", "a", "small/x.raw", ok=False).err
    assert listing(crowded) == before
