"""`pcocc image cache`: what an admin sees of a node's cache, and how it is emptied while VMs run from it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pcocc_runtime.cli import main as cli
from pcocc_runtime.images.images import Found
from tests.images import children
from tests.images.cachenode import ALICE, MEBIBYTE, SERVICE, Node, add, hold, layers, store
from tests.images.disks import Ran
from tests.waiting import wait_closely

Pcocc = Callable[..., Ran]


@pytest.fixture
def command(pcocc: Pcocc, node: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pcocc]:
    """The command as root types it on the node."""
    monkeypatch.setattr("pcocc_runtime.settings.directories.site_dir", lambda environ, uid: str(node.root / "etc"))
    yield pcocc
    assert os.geteuid() == os.getegid() == 0, "root's rights are back"


@pytest.fixture
def filled(node: Node, site: object) -> list[Found]:
    """Three layers in the cache, the most recently used one first; a VM runs from the second."""
    node.start_service()
    every = [add(site, f"i{seed}", seed=seed, size=4 * MEBIBYTE, used=4 * MEBIBYTE) for seed in range(3)]
    for age, one in enumerate(every):
        node.launch(one.path, job=10 + age)
        times = time.time() - 86400 * (1 + age)
        os.utime(store(node).layer(one.revision.layers[-1]), (times, times))
    return every


def run_vm(node: Node, image: Found) -> int:
    """Start a process that uses an image as QEMU does; return its pid."""
    child = node.start(image.path, run=hold)
    wait_closely(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
    return child


def test_the_list_has_what_makes_room_first_at_the_top(command: Pcocc, node: Node, filled: list[Found]) -> None:
    child = run_vm(node, filled[1])
    said = command("image", "cache", "list").out.splitlines()
    assert said[0].startswith(f"{node.cache}: 3 layers, 12") and said[0].endswith(" of at most 1G")
    rows = [line.split() for line in said[2:]]
    assert [row[0] for row in rows] == ["LAYER", *(filled[number].revision.layers[0] for number in (2, 0, 1))]
    assert rows[3][3:] == ["now"] and rows[1][3] < rows[2][3]
    found = json.loads(command("image", "cache", "list", "--json").out)
    assert (found["directory"], found["size"]) == (str(node.cache), 1 << 30)
    assert [one["used"] for one in found["layers"]] == [False, False, True]
    assert all(4 * MEBIBYTE < one["stored"] < 5 * MEBIBYTE for one in found["layers"])
    os.kill(child, signal.SIGKILL)
    children.wait(child)
    assert "now" not in command("image", "cache", "list").out


def test_private_copies_are_listed_and_cleared(command: Pcocc, node: Node, filled: list[Found]) -> None:
    filled[0].path.chmod(0o400)
    os.chown(filled[0].path, ALICE, ALICE)
    child = run_vm(node, filled[0])
    rows = {line.split()[1]: line.split()[0] for line in command("image", "cache", "list").out.splitlines()[3:]}
    assert rows["some"] == filled[0].revision.layers[0] and rows.keys() == {"all", "some"}
    assert [one["public"] for one in json.loads(command("image", "cache", "list", "--json").out)["layers"]].count(False) == 1
    assert command("image", "cache", "clear").out.endswith("; 1 layer in use kept\n") and node.private() == layers(filled[0])
    os.kill(child, signal.SIGKILL)
    children.wait(child)
    command("image", "cache", "clear")
    assert node.private() == set()


def test_clear_leaves_what_a_vm_runs_from(command: Pcocc, node: Node, filled: list[Found]) -> None:
    child = run_vm(node, filled[1])
    (node.cache / ".tmp" / ("0" * 64)).write_bytes(b"what a killed copy left")
    said = command("image", "cache", "clear").out
    assert said.startswith("2 layers removed, 8") and said.endswith(" freed; 1 layer in use kept\n")
    assert node.cached() == layers(filled[1]) and list(node.cache.glob(".tmp/*")) == []
    os.kill(child, signal.SIGKILL)
    children.wait(child)
    assert command("image", "cache", "clear").out.startswith("1 layer removed, 4")
    assert command("image", "cache", "clear").out == "0 layers removed, 0B freed\n"
    assert command("image", "cache", "list").out == f"{node.cache}: 0 layers, 0B of at most 1G\n"
    node.launch(filled[0].path, job=20)
    assert node.cached() == layers(filled[0])


def test_vms_that_start_meanwhile_do_not_notice(command: Pcocc, node: Node, site: object) -> None:
    node.start_service()
    base = add(site, "base", size=8 * MEBIBYTE, used=8 * MEBIBYTE)  # type: ignore[arg-type]
    crew = [node.start(base.path, rank=rank, here=8) for rank in range(8)]
    waiting = set(crew)
    while waiting:
        command("image", "cache", "clear")
        waiting -= {child for child in waiting if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)}
    assert [children.wait(child) for child in crew] == [0] * 8
    assert [node.said(rank=rank) for rank in range(8)] == [""] * 8


def test_others_may_look_but_not_clear(command: Pcocc, node: Node, filled: list[Found]) -> None:
    output = node.root / "said"
    as_alice = lambda *words: children.as_user(ALICE, lambda: cli.main(["image", "cache", *words]), output)  # noqa: E731
    assert as_alice("list") == 0 and "3 layers" in output.read_text()
    assert as_alice("clear") == 1
    assert f"you may not clear the image cache {node.cache}\nhint: only its owner and root can" in output.read_text()
    assert node.cached() == layers(*filled)


def test_root_follows_no_link_of_the_services(command: Pcocc, node: Node, root: Path) -> None:
    """An attacker who has taken over the service owns the directory, but must not reach root's files through it."""
    (root / "roots").mkdir(mode=0o755)
    (victim := root / "roots/file").write_text("root's own")
    (node.cache / "data").mkdir()
    (node.cache / "data/ab").symlink_to(root / "roots")
    (node.cache / ".tmp").symlink_to(root / "roots")
    os.lchown(node.cache / "data/ab", SERVICE, SERVICE)
    assert "you may not clear the image cache" in command("image", "cache", "clear", ok=False).err
    assert victim.read_text() == "root's own"


@pytest.mark.parametrize("verb", ["list", "clear"])
def test_a_host_without_a_cache_says_so(command: Pcocc, node: Node, verb: str) -> None:
    node.cache.chmod(0o777)
    assert f"this host has no image cache: {node.cache} is not a directory" in command("image", "cache", verb, ok=False).err
    shutil.rmtree(node.cache)
    assert "image caches are on the nodes: run this there" in command("image", "cache", verb, ok=False).err
    (node.root / "etc/pcocc.yaml").write_text("")
    assert "this site has no image cache" in command("image", "cache", verb, ok=False).err
