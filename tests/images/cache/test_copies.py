"""The nodes' image caches: filled once, verified, for users who may read the image; the least recently used layer goes first."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pcocc_runtime.cache import layer_store, protocol
from pcocc_runtime.images.references import Repo
from tests.images import children
from tests.images.cachenode import (
    ALICE,
    BOB,
    MEBIBYTE,
    SERVICE,
    Node,
    add,
    count_reads,
    hold,
    layers,
    make_disk_file,
    store,
)
from tests.images.disks import content, make_disk, patched, raw_sum, save, spoil
from tests.waiting import wait_closely


def leftovers(node: Node) -> list[str]:
    return [path.name for path in node.cache.glob(".tmp/*")]


def test_all_users_run_from_one_verified_copy(node: Node, site: Repo) -> None:
    node.start_service()
    base = add(site, "base")
    top = save(site, "base", save(site, "base", base, 1), 2)
    path = node.launch(top.path)
    assert content(path) == patched(1, 2) and node.said() == ""
    assert node.cached() == layers(top) and leftovers(node) == []
    for copy in node.cache.glob("data/*/*"):
        assert hashlib.sha256(copy.read_bytes()).hexdigest() == copy.name
        assert (copy.stat().st_uid, copy.stat().st_mode & 0o777) == (SERVICE, 0o444)
    inodes = {copy.stat().st_ino for copy in node.cache.glob("data/*/*")}
    other = node.launch(top.path, uid=BOB, job=8)
    assert {link.resolve() for link in other.parents[1].glob("*/*")} == set(node.cache.glob("data/*/*"))
    assert inodes == {copy.stat().st_ino for copy in node.cache.glob("data/*/*")}


def test_sixteen_who_start_at_once_copy_once(node: Node, site: Repo) -> None:
    node.start_service()
    base = add(site, "base", size=8 * MEBIBYTE, used=8 * MEBIBYTE)
    crew = [node.start(base.path, rank=rank, here=16) for rank in range(16)]
    assert [children.wait(child) for child in crew] == [0] * 16
    assert node.cached() == layers(base) and node.own() == set()
    assert [node.said(rank=rank) for rank in range(16)] == [""] * 16


def test_without_the_service_a_job_with_several_vms_has_copies_of_its_own(node: Node, site: Repo) -> None:
    base = add(site, "base")
    assert node.launch(base.path).resolve() == base.path and node.own() == set()
    crew = [node.start(base.path, rank=rank, here=4) for rank in range(4)]
    assert [children.wait(child) for child in crew] == [0] * 4
    assert node.own() == layers(base) and node.cached() == set()
    [copy] = node.root.glob("scratch7/layers/data/*/*")
    assert copy.stat().st_uid == ALICE and copy.parents[2].stat().st_mode & 0o777 == 0o700
    assert content(node.root / "scratch7/vm3.layers/data" / copy.name[:2] / copy.name) == raw_sum()


def test_a_forged_request_puts_nothing_in_the_cache(node: Node, site: Repo) -> None:
    node.start_service()
    base = add(site, "base")
    [layer] = layers(base)
    forged = node.root / "forged"
    forged.write_bytes(b"not the layer" * 1000)

    def ask(layer: object, fd: int) -> str:
        asked = protocol.connect()
        assert asked is not None
        with asked:
            protocol.send_request(asked, layer, fd)  # type: ignore[arg-type]
            return list(protocol.receive_states(asked))[-1].message

    def open_as(flags: int, path: Path = forged) -> int:
        return os.open(path, flags | os.O_NONBLOCK)

    assert "does not match the checksum in its name" in ask(layer, open_as(os.O_RDONLY))
    for wrong in ("../../etc/passwd", layer + "\n", layer.upper(), "", 3, None, ["a"]):
        assert "not a request" in ask(wrong, open_as(os.O_RDONLY)), wrong
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_PATH):
        assert "not a file that is open for reading" in ask(layer, open_as(flags))
    os.mkfifo(node.root / "fifo")
    assert "not a file that is open for reading" in ask(layer, open_as(os.O_RDONLY, node.root / "fifo"))
    forged.chmod(0o640)
    assert "not everybody may read" in ask(layer, open_as(os.O_RDONLY))
    assert node.cached() == set() and leftovers(node) == []
    node.launch(base.path)
    assert node.cached() == layers(base)


def test_a_damaged_layer_is_refused(node: Node, site: Repo) -> None:
    base = add(site, "base")
    spoil(base.path, 300_000)
    assert children.wait(node.start(base.path, here=2)) == 1
    assert (
        "is damaged: its content does not match the checksum in its name" in node.said()
        and "hint: 'pcocc image verify'" in node.said()
    )
    node.start_service()
    assert children.wait(node.start(base.path)) == 1
    assert "is damaged: its content does not match the checksum in its name" in node.said() and node.said().count("\n") == 1
    assert node.cached() == node.own() == set() and leftovers(node) == []


@pytest.mark.parametrize("served", [True, False])
def test_a_killed_copy_is_done_again(node: Node, site: Repo, served: bool) -> None:
    base = add(site, "base", size=48 * MEBIBYTE, used=48 * MEBIBYTE)
    small = add(site, "small", seed=5)
    parts = node.cache / ".tmp" if served else node.root / "scratch7/layers/.tmp"
    for killed in range(3):
        begin = time.time_ns()
        if served:
            node.start_service()
        child = node.start(base.path, here=2)

        def is_written(begin: int = begin) -> bool:
            return any(one.st_blocks and one.st_mtime_ns > begin for one in map(Path.stat, parts.glob("*")))

        wait_closely(is_written)
        if served:
            kill_children(node)
            os.unlink(protocol.SOCKET)
        else:
            os.kill(child, signal.SIGKILL)
        children.wait(child)
        if served and not killed:
            assert "read from where it is stored" in node.said() and "without an answer" in node.said()
        assert next(parts.iterdir()).name.partition(".")[0] in layers(base)
    if served:
        node.start_service()
    [part] = parts.iterdir()
    part.chmod(0o444)  # as if killed just before it got its name
    assert content(node.launch(base.path, here=2)) == raw_sum(size=48 * MEBIBYTE, used=48 * MEBIBYTE)
    part.with_name("0" * 64).touch()
    node.launch(small.path, here=2)  # makes room: nobody can use what a killed copier has left
    assert list(parts.iterdir()) == []
    assert (node.cached() if served else node.own()) == layers(base, small)


def kill_children(node: Node) -> None:
    """Kill the service while it copies, and the copy."""
    assert node.service is not None
    busy = Path(f"/proc/{node.service}/task/{node.service}/children").read_text().split()
    assert busy
    for pid in busy:
        os.kill(int(pid), signal.SIGKILL)
    node.stop()
    node.service = None


def test_the_layers_unused_for_longest_make_room(node: Node, site: Repo) -> None:
    every = [add(site, f"i{seed}", seed=seed, size=4 * MEBIBYTE, used=4 * MEBIBYTE) for seed in range(4)]
    node.configure("15M")  # three of these, each of a little more than 4 MiB
    node.start_service()
    for age, one in enumerate(every[:3]):
        node.launch(one.path, job=10 + age)
        os.utime(store(node).layer(one.revision.layers[-1]), (times := time.time() - 86400 + age, times))
    node.launch(every[0].path)  # the service notes its use, because the launcher may not
    wait_closely(lambda: store(node).layer(every[0].revision.layers[-1]).stat().st_mtime > time.time() - 3600)
    node.launch(every[3].path)
    assert node.cached() == layers(every[0], every[2], every[3])


def test_a_layer_that_a_vm_runs_from_stays(node: Node, site: Repo) -> None:
    first, second, third = (add(site, f"i{seed}", seed=seed, size=4 * MEBIBYTE, used=4 * MEBIBYTE) for seed in range(3))
    node.configure("6M")
    node.start_service()
    child = node.start(first.path, run=hold)
    wait_closely(lambda: "path" in node.said_path(7, 0).read_text() if node.said_path(7, 0).exists() else False)
    wait_closely(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
    assert node.launch(second.path, job=8).resolve() == second.path
    assert "read from where it is stored" in node.said(8) and "in use" in node.said(8) and node.said(8).count("\n") == 0
    assert node.cached() == layers(first)
    os.kill(child, signal.SIGKILL)
    children.wait(child)
    node.launch(third.path, job=9)
    assert node.cached() == layers(third) and node.said(9) == ""


def test_what_does_not_fit_is_read_where_it_is_with_one_word(node: Node, site: Repo) -> None:
    big = add(site, "big", size=4 * MEBIBYTE, used=4 * MEBIBYTE)
    node.configure("2M")
    node.start_service()
    assert node.launch(big.path, here=2).resolve() == big.path and node.said() == "" and node.cached() == node.own() == set()
    node.configure("1G")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=3m,mode=755,uid={SERVICE}", "none", node.cache], check=True)
    try:
        crew = [node.start(big.path, rank=rank, here=4, job=8) for rank in range(4)]
        assert [children.wait(child) for child in crew] == [0] * 4
        said = [node.said(8, rank) for rank in range(4)]
        assert sorted(map(bool, said)) == [False, False, False, True] and "has no room for" in "".join(said), said
        assert leftovers(node) == [] and node.cached() == set()
    finally:
        subprocess.run(["umount", "--lazy", node.cache], check=True)  # an instance of the service may be about to end


def test_a_jobs_own_copy_leaves_room_for_what_its_vms_write(node: Node, site: Repo) -> None:
    base = add(site, "base", size=4 * MEBIBYTE, used=4 * MEBIBYTE)
    (scratch := node.root / "scratch7").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=7m", "none", scratch], check=True)
    try:
        assert node.launch(base.path, here=2).resolve() == base.path and "has no room for" in node.said()
        subprocess.run(["mount", "-o", "remount,size=12m", scratch], check=True)
        assert node.launch(base.path, here=2).resolve() != base.path and node.own() == layers(base)
    finally:
        subprocess.run(["umount", scratch], check=True)


def test_a_file_system_that_fills_in_the_copy_is_no_failure(root: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", root], check=True)
    try:
        source = root.parent / f"{root.name}.source"
        source.write_bytes(os.urandom(4 * MEBIBYTE))
        layer = hashlib.sha256(source.read_bytes()).hexdigest()
        (root / "s").mkdir()
        fd = os.open(source, os.O_RDONLY)
        has_free, layer_store._has_free = layer_store._has_free, lambda _store, _size: True  # others fill it meanwhile
        try:
            with pytest.raises(layer_store.NoRoom, match="No space left"):
                layer_store.fill(layer_store.Store(str(root / "s"), 1 << 30), layer, fd, lambda state, size: None)
        finally:
            layer_store._has_free = has_free
            os.close(fd)
            source.unlink()
        assert [path for path in (root / "s").rglob("*") if path.is_file()] == []
    finally:
        subprocess.run(["umount", root], check=True)


def test_holes_stay_holes_and_count_in_the_sum(root: Path) -> None:
    source, size = root / "source", 64 * MEBIBYTE + 4096 + 7
    with open(source, "wb") as stream:
        for at in (0, 20 * MEBIBYTE + 512, 40 * MEBIBYTE - 3):
            stream.seek(at)
            stream.write(os.urandom(5000))
        stream.truncate(size)
    layer = hashlib.sha256(source.read_bytes()).hexdigest()
    kept = layer_store.Store(str(root), 1 << 30)
    fd = os.open(source, os.O_RDONLY)
    layer_store.fill(kept, layer, fd, lambda state, size: None)
    os.close(fd)
    assert kept.layer(layer).read_bytes() == source.read_bytes()
    assert kept.layer(layer).stat().st_blocks * 512 < 4 * MEBIBYTE


def test_an_image_of_another_kind_stays_where_it_is(node: Node, site: Repo, root: Path) -> None:
    node.start_service()
    disk = make_disk(root / "plain.qcow2")
    assert node.launch(disk) == disk
    foreign = root / "images/data/ab" / f"ab{'0' * 62}"
    foreign.parent.mkdir(parents=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", foreign], check=True)
    node.settings = replace(node.settings, size=0)  # nothing fits, so its name is not looked into
    assert node.launch(foreign) == foreign and node.cached() == set()


def test_a_directory_that_others_can_write_is_not_used(node: Node, site: Repo) -> None:
    node.start_service()
    base = add(site, "base")
    node.launch(base.path)
    node.cache.chmod(0o777)
    assert node.launch(base.path, job=8).resolve() == base.path


def test_sixteen_vms_read_each_block_of_the_shared_file_system_once(node: Node, root: Path) -> None:
    mounted = make_disk_file(root / "fs", 128 * MEBIBYTE)
    try:
        repo = Repo("site", str(mounted / "images"))
        base = add(repo, "base", size=8 * MEBIBYTE, used=8 * MEBIBYTE)
        top = save(repo, "base", base, 1)
        size = sum(path.stat().st_size for path in Path(repo.path).glob("data/*/*"))

        def count(job: int) -> int:
            read = count_reads(node, root / "fs", mounted, top.path, job)
            for raw in (node.root / f"scratch{job}").glob("vm*.layers/data/*/*.raw") if node.settings.size else ():
                assert hashlib.sha256(raw.read_bytes()).hexdigest() == patched(1, size=8 * MEBIBYTE, used=8 * MEBIBYTE)
            return read

        node.settings = replace(node.settings, size=0)
        assert count(8) > 15 * size
        node.settings = replace(node.settings, size=1 << 30)
        own = count(9)
        node.start_service()
        shared = count(10)
        assert 0.9 * size < own < size + MEBIBYTE and 0.9 * size < shared < size + MEBIBYTE, (size, own, shared)
        assert node.cached() == node.own(9) == layers(top)
        Path(repo.path).chmod(0o700)
        os.chown(repo.path, ALICE, ALICE)
        private = count(11)
        assert 0.9 * size < private < size + MEBIBYTE and node.private() == layers(top), (size, private)
    finally:
        subprocess.run(["umount", "-l", mounted], check=True)
