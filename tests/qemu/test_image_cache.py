"""VMs that run from a node's own copies of their images, kept by the service as systemd starts it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pcocc_runtime.cache import layer_store
from pcocc_runtime.documents.cluster import Group
from pcocc_runtime.documents.image_cache import ImageCache
from pcocc_runtime.images import in_use, repository, writing
from pcocc_runtime.images.images import Found
from pcocc_runtime.images.references import Repo
from pcocc_runtime.system import held
from tests.images.disks import patched, raw_sum, save, write_raw
from tests.qemu.vm import APPEND, DATA, GUEST, KEEPS_IMAGES, USER, StartVm

SIZE = 1 << 30


@pytest.fixture
def image(tmp_path: Path) -> Found:
    """An image of two layers in a repository of the site."""
    tmp_path.chmod(0o755)
    repo = Repo("site", str(tmp_path / "images"))
    raw = write_raw(tmp_path / "raw")
    with writing.open_repo_work(repo) as work:
        layer = Path(held.show(str(work.path)), "layer")
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, layer], check=True)
        base = Found(repo, writing.add_revision(work, "base", layer, None))
    return save(repo, "base", base, 3)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The directory that all users' copies are in."""
    (tmp_path / "cache").mkdir(mode=0o755)
    shutil.chown(tmp_path / "cache", KEEPS_IMAGES, KEEPS_IMAGES)
    return tmp_path / "cache"


def group_for(image: Found, tmp_path: Path) -> Group:
    path = f"{DATA}/{image.path.relative_to(tmp_path)}"
    return Group("t", 1, image=path, kernel=f"{GUEST}/vmlinux", initrd=f"{GUEST}/initrd", append=APPEND)


def opened(pid: int) -> list[str]:
    """Return the files a process has open."""
    return [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]


def test_vms_run_from_one_copy_and_hold_it(start: StartVm, image: Found, cache: Path, tmp_path: Path) -> None:
    facts = ImageCache(SIZE, f"{DATA}/cache")
    both = [start(group_for(image, tmp_path), job=job, cache=facts) for job in (7, 8)]
    store = layer_store.Store(str(cache), SIZE)
    for vm in both:
        vm.connect()  # before either has booted: otherwise its output is lost
    for vm in both:
        vm.boot()
        assert vm.run("sha256sum </dev/vda").split()[0] == patched(3)
        assert vm.run("head -c 512 /dev/zero >/dev/vda; sync; echo $?") == "0\n"
        used = opened(vm.process.pid)
        for layer in image.revision.layers:
            assert any(path.endswith(f"/cache/data/{layer[:2]}/{layer}") for path in used), used
            assert in_use.is_in_use(repository.layer_file(image.repo, layer))  # gc keeps it
    both[0].process.kill()
    both[0].wait()
    for layer in image.revision.layers:
        assert not layer_store.remove_unused(store.layer(layer))
        assert hashlib.sha256(store.layer(layer).read_bytes()).hexdigest() == layer
        assert store.layer(layer).stat().st_uid != 0 and store.layer(layer).owner() == KEEPS_IMAGES
    both[1].process.kill()
    both[1].wait()
    for layer in image.revision.layers:
        assert not in_use.is_in_use(repository.layer_file(image.repo, layer)) and layer_store.remove_unused(store.layer(layer))


def test_a_vm_runs_from_a_copy_that_only_its_readers_get(start: StartVm, image: Found, cache: Path, tmp_path: Path) -> None:
    top = repository.layer_file(image.repo, image.revision.layers[-1])
    top.chmod(0o400)
    shutil.chown(top, USER, USER)
    vm = start(group_for(image, tmp_path), cache=ImageCache(SIZE, f"{DATA}/cache")).boot()
    assert vm.run("sha256sum </dev/vda").split()[0] == patched(3) and "pcocc: " not in vm.said()
    [copy] = cache.glob("private/data/*/*")
    assert copy.name.startswith(top.name) and copy.parents[2].stat().st_mode & 0o777 == 0o700
    assert any(path.endswith(f"/cache/private/data/{top.name[:2]}/{copy.name}") for path in opened(vm.process.pid))
    assert not layer_store.remove_unused(copy) and in_use.is_in_use(top)
    overlay = f"{DATA}/scratch/pcocc/7/vm0.qcow2"
    read = ["nsenter", f"--target={vm.process.pid}", "--mount", "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups",
            "qemu-img", "convert", "-U", "-O", "raw", overlay, f"{DATA}/scratch/pcocc/7/raw"]  # fmt: skip
    subprocess.run(read, check=True)  # as a full save does
    vm.process.kill()
    vm.wait()
    assert layer_store.remove_unused(copy)


def test_without_the_service_the_vm_runs_from_its_repository(start: StartVm, image: Found, cache: Path, tmp_path: Path) -> None:
    vm = start(group_for(image, tmp_path), cache=ImageCache(SIZE, f"{DATA}/cache"), served=False).boot()
    assert vm.run("sha256sum </dev/vda").split()[0] == patched(3) != raw_sum()
    assert any(path.endswith(image.revision.layers[0]) and "/images/data/" in path for path in opened(vm.process.pid))
    assert list(cache.iterdir()) == [] and "pcocc: " not in vm.said()


def test_a_damaged_layer_starts_no_vm(start: StartVm, image: Found, cache: Path, tmp_path: Path) -> None:
    bottom = repository.layer_file(image.repo, image.revision.layers[0])
    bottom.chmod(0o644)
    with open(bottom, "r+b") as stream:
        stream.seek(300_000)
        stream.write(b"x" * 16)
    vm = start(group_for(image, tmp_path), cache=ImageCache(SIZE, f"{DATA}/cache"))
    assert vm.wait() == 1
    lines = vm.said().splitlines()
    assert lines[0].startswith("pcocc: error: vm0 on here: layer ") and "is damaged" in lines[0] and len(lines) == 2
