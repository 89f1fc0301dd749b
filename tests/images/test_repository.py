"""What a repository holds: layers on layers, names on layers; moved, shared, read-only, from pcocc 0.7, damaged."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from pcocc_runtime.images import images, metadata, removing, repository, writing
from pcocc_runtime.images.images import Found
from pcocc_runtime.images.references import Repo
from tests.images.disks import (
    Ran,
    content,
    find,
    leftovers,
    listing,
    make_disk,
    patched,
    qemu_img,
    raw_sum,
    save,
    spoil,
)

Pcocc = Callable[..., Ran]


def test_a_save_is_a_layer_on_the_layers_before(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    first = save(repo, "base", base, 1)
    second = save(repo, "base", first, 2)
    assert [one.revision.revision for one in (base, first, second)] == [0, 1, 2]
    assert second.revision.layers[:1] == base.revision.layers
    assert content(second.path) == patched(1, 2) and content(first.path) == patched(1) and content(base.path) == raw_sum()
    info = json.loads(qemu_img("info", "--output=json", second.path))
    assert info["backing-filename"] == metadata.backing_name(first.revision.layers[-1])
    pcocc("image", "verify")


def test_a_repository_can_be_moved(pcocc: Pcocc, repo: Repo, base: Found, tmp_path: Path) -> None:
    save(repo, "base", base, 3)
    shutil.move(repo.path, tmp_path / "elsewhere")
    moved = Repo("moved", str(tmp_path / "elsewhere"))
    assert content(find("base", moved).path) == patched(3)
    images.ensure_disk(find("base", moved))


def test_a_new_image_can_build_on_another_repository(pcocc: Pcocc, repo: Repo, other: Repo, base: Found) -> None:
    new = save(other, "mine", base, 4, new=True)
    assert new.reference == "site:mine@0" and content(new.path) == patched(4)
    shutil.rmtree(repo.path)
    assert content(new.path) == patched(4)


def test_resize_makes_a_larger_revision(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    assert pcocc("image", "resize", "base", "3M").out == "stored as user:base@1\n"
    assert content(find("base", repo).path) == raw_sum(size=3 << 20)
    pcocc("image", "resize", "base", "+1M")
    assert content(find("base", repo).path) == raw_sum(size=4 << 20)
    for size in ("1M", "x", "+", "-1G", "1.5G", "100", "9999999999T"):
        pcocc("image", "resize", "--", "base", size, ok=False)
    assert "a disk cannot be made smaller" in pcocc("image", "resize", "base", "3M", ok=False).err
    for size in ("4M", "+0", "4096K"):
        assert "image user:base@2 has 4M already" in pcocc("image", "resize", "base", size, ok=False).err
    assert "5000T is too large: a disk can have 2P" in pcocc("image", "resize", "base", "5000T", ok=False).err
    pcocc("image", "resize", "base", "2048T")
    assert "a disk cannot be made smaller" in pcocc("image", "resize", "base", "-1M", ok=False).err


def test_too_many_layers_are_refused_when_they_are_made(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    for number in range(1, metadata.MAX_LAYERS):
        pcocc("image", "resize", "base", f"{number + 1}M")
    assert "has 16 layers, and an image can have 16 at most" in pcocc("image", "resize", "base", "1G", ok=False).err
    pcocc("image", "export", "base", "flat.qcow2")
    pcocc("image", "import", "flat.qcow2", "flat")
    assert content(find("flat", repo).path) == raw_sum(size=16 << 20)


def test_copies_share_layers_or_bring_them(pcocc: Pcocc, repo: Repo, other: Repo, base: Found) -> None:
    save(repo, "base", base, 5)
    before = listing(repo)
    pcocc("image", "copy", "base@0", "twin")
    assert set(listing(repo)) - set(before) == {"meta/twin@0"}
    pcocc("image", "copy", "base", "site:far")
    assert content(find("site:far", other).path) == patched(5)
    assert "has an image 'far' already" in pcocc("image", "copy", "base", "site:far", ok=False).err


def test_deleting_frees_what_nobody_else_needs(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    top = save(repo, "base", base, 6)
    pcocc("image", "copy", "base@0", "twin")
    assert "1 revision deleted; 0 layers removed" in pcocc("image", "delete", "base@0").out
    assert content(top.path) == patched(6) and base.path.exists()
    assert "1 layer removed" in pcocc("image", "delete", "base").out
    assert not top.path.exists() and content(find("twin", repo).path) == raw_sum()
    pcocc("image", "delete", "twin")
    assert listing(repo) == {}


@pytest.mark.parametrize("name", ["nope", "base@7", "site:base", "nowhere:base", "base@x"])
def test_deleting_what_is_not_there_is_refused(pcocc: Pcocc, repo: Repo, base: Found, name: str) -> None:
    before = listing(repo)
    pcocc("image", "delete", name, ok=False)
    assert listing(repo) == before


def test_deleting_never_goes_on_to_another_repository(pcocc: Pcocc, repo: Repo, other: Repo, base: Found) -> None:
    pcocc("image", "copy", "base", "site:only")
    said = pcocc("image", "delete", "only", ok=False).err
    assert "there is no image 'only' in repository 'user'" in said and "hint: there is site:only" in said
    assert find("site:only", other)


def test_layers_that_a_vm_uses_are_kept(pcocc: Pcocc, repo: Repo, base: Found, tmp_path: Path) -> None:
    top = save(repo, "base", base, 7)
    qemu_img("create", "-q", "-f", "qcow2", "-b", top.path, "-F", "qcow2", tmp_path / "overlay")
    with subprocess.Popen(["qemu-io", "-f", "qcow2", tmp_path / "overlay"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as vm:
        assert vm.stdin and vm.stdout
        vm.stdin.write(b"read 0 512\n")
        vm.stdin.flush()
        vm.stdout.readline()
        assert "2 layers in use by running VMs" in pcocc("image", "delete", "base").err
        assert "2 layers in use by running VMs" in pcocc("image", "repo", "gc", "--grace", "0").err
        assert content(top.path) == patched(7)
        vm.stdin.close()
    assert "2 layers removed" in pcocc("image", "repo", "gc", "--grace", "0").out
    assert listing(repo) == {}


@pytest.mark.parametrize("how", ["update", "replace", "file"])
def test_a_vm_keeps_the_image_it_was_started_from(pcocc: Pcocc, repo: Repo, base: Found, tmp_path: Path, how: str) -> None:
    """However the image is replaced while a VM runs from it: what the VM reads for the first time afterwards is still the
    old content.
    """
    make_disk(tmp_path / "new.qcow2", seed=1)
    disk = shutil.copy(base.path, tmp_path / "disk.qcow2") if how == "file" else base.path
    qemu_img("create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", tmp_path / "overlay")
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", tmp_path / "overlay"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as vm:
        assert vm.stdin and vm.stdout
        vm.stdin.write("read 0 512\n")
        vm.stdin.flush()
        vm.stdout.readline()
        if how == "file":
            os.replace(tmp_path / "new.qcow2", tmp_path / "disk.qcow2")
        else:
            if how == "replace":
                pcocc("image", "delete", "base")
            pcocc("image", "import", "--update", "new.qcow2", "base")
            if how == "update":
                pcocc("image", "delete", "base@0")
            pcocc("image", "repo", "gc", "--grace", "0")
            assert content(find("base", repo).path) == raw_sum(1)
        out, _err = vm.communicate("read -v 131072 512\n")
    dump = bytes.fromhex("".join(line[11:58] for line in out.splitlines() if line.startswith("00020")))
    assert dump == (tmp_path / "base.qcow2.raw").read_bytes()[131072 : 131072 + 512]


def test_gc_leaves_young_layers_and_takes_old_ones(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    Path(repo.path, "meta/base@0").unlink()
    done = pcocc("image", "repo", "gc")
    assert "0 layers removed" in done.out and "1 layer kept: younger than 10 minutes" in done.err
    assert "1 layer removed" in pcocc("image", "repo", "gc", "user", "--grace", "0").out


def test_gc_takes_nothing_when_it_cannot_know_what_is_needed(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    Path(repo.path, "meta/base@0").write_text("{")
    assert "it is not known which ones are needed" in pcocc("image", "repo", "gc", "--grace", "0").err
    assert base.path.exists()
    pcocc("image", "delete", "base@0")
    assert "1 layer removed" in pcocc("image", "repo", "gc", "--grace", "0").out


def write_old_repository(root: Path, disk: Path, **changed: Any) -> str:
    """Write a repository as pcocc 0.7 does: version 2, one image of one layer; return the layer's sum."""
    digest = hashlib.sha256(disk.read_bytes()).hexdigest()
    (root / "data" / digest[:2]).mkdir(parents=True)
    (root / "meta").mkdir()
    (root / ".tmp").mkdir()
    (root / ".config").write_text("version: 2\n")
    shutil.copyfile(disk, root / "data" / digest[:2] / digest)
    meta = {
        "name": "old",
        "revision": 0,
        "kind": "vm",
        "owner": "alice",
        "timestamp": 1700000000.25,
        "data_blobs": [digest],
        "custom_meta": {},
    }
    (root / "meta/old@0").write_text(json.dumps({**meta, **changed}))
    return digest


def test_a_repository_of_the_original_is_read_and_written(pcocc: Pcocc, repo: Repo, other: Repo, tmp_path: Path) -> None:
    digest = write_old_repository(Path(other.path), make_disk(tmp_path / "old.qcow2"))
    assert "old" in pcocc("image", "list").out and "1M" in pcocc("image", "list", "old").out
    assert content(find("old", other).path) == raw_sum()
    assert pcocc("image", "resize", "old", "2M").out == "stored as site:old@1\n"
    meta = json.loads(Path(other.path, "meta/old@1").read_text())
    assert set(meta) == {"name", "revision", "kind", "owner", "timestamp", "data_blobs", "custom_meta"}
    assert meta["data_blobs"][0] == digest and isinstance(meta["custom_meta"], dict)
    pcocc("image", "verify")
    before = listing(other)
    Path(other.path, ".tmp/tmpabc").write_text("left by pcocc 0.7")
    os.utime(Path(other.path, ".tmp/tmpabc"))
    pcocc("image", "repo", "gc", "site", "--grace", "0")
    assert listing(other) == before and leftovers(other) == ["tmpabc"]  # it may be at work


@pytest.mark.parametrize("entry", ["n" * 253 + "@7", "n" * 201 + "@0", "old@1234567890123"])
def test_long_names_of_the_original_are_images_too(pcocc: Pcocc, repo: Repo, other: Repo, tmp_path: Path, entry: str) -> None:
    name, number = entry.split("@")
    write_old_repository(Path(other.path), make_disk(tmp_path / "old.qcow2"), name=name, revision=int(number))
    Path(other.path, "meta/old@0").rename(Path(other.path, "meta", entry))
    before = listing(other)
    assert "0 layers removed" in pcocc("image", "repo", "gc", "site", "--grace", "0").out and listing(other) == before
    assert name in pcocc("image", "list").out
    pcocc("image", "copy", f"site:{entry}", "short")
    assert content(find("short", repo).path) == raw_sum()
    assert "1 revision deleted; 1 layer removed" in pcocc("image", "delete", f"site:{entry}").out


@pytest.mark.parametrize("size", [10**400, 1 << 63, 0, -5, True, 1.5, "1M", None])
def test_a_size_that_makes_no_sense_is_read_from_the_disk(pcocc: Pcocc, repo: Repo, base: Found, size: Any) -> None:
    path = Path(repo.path, "meta/base@0")
    meta = json.loads(path.read_text())
    meta["custom_meta"]["disk"]["size"] = size
    path.write_text(json.dumps(meta))
    assert (
        "  1M  " in pcocc("image", "list").out
        and json.loads(pcocc("image", "list", "--json").out)[0]["virtual_size"] == 1 << 20
    )


@pytest.mark.parametrize("how", ["flip", "cut"])
def test_a_damaged_layer_is_replaced_when_its_content_comes_again(pcocc: Pcocc, repo: Repo, base: Found, how: str) -> None:
    pcocc("image", "copy", "base", "twin")
    spoil(base.path, 300000) if how == "flip" else os.truncate(base.path, 300000)
    with open(base.path, "rb") as vm:
        damaged = vm.read()
        pcocc("image", "import", "base.qcow2", "again")
        vm.seek(0)
        assert vm.read() == damaged  # what has it open goes on
    pcocc("image", "verify")
    assert base.path.stat().st_mode & 0o777 == 0o444


def test_a_sound_layer_stays_when_its_content_comes_again(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    before = base.path.stat().st_ino
    pcocc("image", "import", "base.qcow2", "again")
    assert base.path.stat().st_ino == before and leftovers(repo) == []


def test_a_copy_brings_what_is_cut_short(pcocc: Pcocc, repo: Repo, other: Repo, base: Found) -> None:
    top = save(repo, "base", base, 5)
    pcocc("image", "copy", "base", "site:a")
    os.truncate(Path(other.path, metadata.layer_path(base.revision.layers[0])), 0)
    pcocc("image", "copy", "base", "site:b")
    assert content(find("site:b", other).path) == content(top.path) == patched(5)
    pcocc("image", "verify")
    os.truncate(base.path, 0)  # but never the other way round
    pcocc("image", "copy", "base", "site:c")
    assert content(find("site:c", other).path) == patched(5)


def test_a_writer_without_our_lock_keeps_its_revision(pcocc: Pcocc, repo: Repo, base: Found, mocker: MockerFixture) -> None:
    theirs = Path(repo.path, "meta/base@1")

    def put_layer(*arguments: Any) -> None:
        original(*arguments)
        theirs.write_text(Path(repo.path, "meta/base@0").read_text().replace('"revision": 0', '"revision": 1'))

    original = repository.put_layer
    mocker.patch("pcocc_runtime.images.repository.put_layer", put_layer)
    assert pcocc("image", "resize", "base", "2M").out == "stored as user:base@2\n"
    assert content(find("base@1", repo).path) == raw_sum() and content(find("base", repo).path) == raw_sum(size=2 << 20)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_will_do(
    pcocc: Pcocc, repo: Repo, base: Found, mocker: MockerFixture, number: int
) -> None:
    mocker.patch("os.link", side_effect=OSError(number, os.strerror(number)))
    pcocc("image", "resize", "base", "2M")
    pcocc("image", "export", "base", "x.raw")
    assert content(Path("x.raw"), "raw") == content(find("base@1", repo).path) == raw_sum(size=2 << 20)
    assert "exists" in pcocc("image", "export", "base", "x.raw", ok=False).err
    assert "cannot be written to standard output" in pcocc("image", "export", "base", "-t", "raw", "-", ok=False).err


def test_a_file_system_without_locks_is_read_only(pcocc: Pcocc, repo: Repo, base: Found, mocker: MockerFixture) -> None:
    mocker.patch("fcntl.lockf", side_effect=OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)))
    before = listing(repo)
    for argv in (["resize", "base", "2M"], ["delete", "base"], ["repo", "gc"], ["copy", "base", "b"]):
        assert "has no file locks" in pcocc("image", *argv, ok=False).err
    pcocc("image", "verify")
    assert listing(repo) == before and leftovers(repo) == []


def test_a_size_that_the_original_carries_on_is_not_believed(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    pcocc("image", "resize", "base", "5M")
    for revision in (0, 1):
        path = Path(repo.path, f"meta/base@{revision}")
        meta = json.loads(path.read_text())
        meta["custom_meta"]["disk"] = {"layer": "0" * 64, "size": 7 << 40}
        path.write_text(json.dumps(meta))
    assert "  5M  " in pcocc("image", "list").out and "disk    5M\n" in pcocc("image", "show", "base").out


def test_a_container_image_is_listed_copied_and_refused_for_vms(pcocc: Pcocc, repo: Repo, other: Repo, tmp_path: Path) -> None:
    digest = write_old_repository(Path(other.path), make_disk(tmp_path / "old.qcow2"), kind="ctr")
    meta = Path(other.path, "meta/old@0")
    meta.write_text(meta.read_text().replace(digest, f"sha256:{digest}"))
    pcocc("image", "copy", "old", "user:ctr")
    assert find("ctr", repo).revision.blobs == (f"sha256:{digest}",) and "ctr" in pcocc("image", "list").out
    assert "is for containers, not for VMs" in pcocc("image", "export", "ctr", "x.raw", ok=False).err
    pcocc("image", "verify")


def test_work_that_is_under_way_is_safe_from_gc(pcocc: Pcocc, repo: Repo, base: Found) -> None:
    with writing.open_repo_work(repo) as work:
        assert writing.pin(work, base.revision.layers) == []
        (work.path / "layer").write_text("half")
        for argv in (["delete", "base"], ["repo", "gc", "--grace", "0"]):
            subprocess_run(*argv, repo=repo)
        assert base.path.exists() and (work.path / "layer").exists()
    removing.collect(repo, 0)
    assert not base.path.exists() and leftovers(repo) == []


def subprocess_run(*argv: str, repo: Repo) -> None:
    """Run `pcocc image` in another process: a process's own locks do not keep it out."""
    child = os.fork()
    if not child:
        from pcocc_runtime.cli import main as cli

        os._exit(cli.main(["image", *argv]))
    assert os.waitpid(child, 0)[1] == 0
