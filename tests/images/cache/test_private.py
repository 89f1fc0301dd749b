"""Copies of layers that not everybody may read: only users who may read the source get them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pcocc_runtime.cache import protocol, sources
from pcocc_runtime.images.images import Found
from pcocc_runtime.images.references import Repo
from tests.images import children
from tests.images.cachenode import ALICE, BOB, MEBIBYTE, SERVICE, Node, add, hold, layers
from tests.images.disks import content, patched, raw_sum, save
from tests.waiting import wait_closely

GROUP = 65000  # of a project


def cannot_open(path: Path) -> None:
    if children.as_user(BOB, lambda: os.access(path, os.R_OK) or os.access(path, os.X_OK)) == 0:
        raise PermissionError


def restrict(image: Found, group: int) -> None:
    """Let nobody but alice and a group read an image's layer."""
    image.path.chmod(0o440)
    os.chown(image.path, ALICE, group)


def summed(path: str) -> int:
    """Print the sum of a disk's content; give nothing back."""
    print(content(Path(path)))
    return 0


def test_who_may_read_a_source_shares_its_copy(node: Node, site: Repo) -> None:
    node.start_service()
    base = add(site, "base")
    top = save(site, "base", base, 1)
    restrict(top, GROUP)
    node.launch(top.path, run=summed)
    assert node.said() == patched(1) and node.cached() == layers(base) and node.private() == layers(top) - layers(base)
    [copy] = node.cache.glob("private/data/*/*")
    assert (copy.stat().st_uid, copy.stat().st_mode & 0o777, (node.cache / "private").stat().st_mode & 0o777) == (
        SERVICE, 0o444, 0o700,
    )
    before = copy.stat().st_ino
    for job, who in ((8, {}), (9, {"uid": BOB, "groups": (GROUP,)})):
        node.launch(top.path, job=job, run=summed, **who)
        assert node.said(job) == patched(1) and node.own(job) == set()
    assert [one.stat().st_ino for one in node.cache.glob("private/data/*/*")] == [before]
    assert children.wait(node.start(top.path, uid=BOB, job=10, here=2)) == 1
    assert "cannot be read here: Permission denied" in node.said(10) and node.said(10).startswith("pcocc: error: ")
    for user in (ALICE, BOB):
        assert children.as_user(user, lambda: os.access(copy, os.R_OK)) == 0, "by its path nobody reads it"


def test_a_layer_below_a_directory_for_some_is_theirs(node: Node, site: Repo) -> None:
    node.start_service()
    other = add(site, "other", seed=3)
    Path(site.path).chmod(0o750)
    os.chown(site.path, ALICE, ALICE)
    node.launch(other.path)
    assert node.cached() == set() and node.private() == layers(other)


def test_vms_hold_private_copies_and_the_limit_counts_them(node: Node, site: Repo) -> None:
    node.configure("5M")
    node.start_service()
    one, other = (add(site, f"i{seed}", seed=seed, size=4 * MEBIBYTE, used=4 * MEBIBYTE) for seed in (1, 2))
    restrict(one, GROUP)
    child = node.start(one.path, run=hold)
    wait_closely(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
    assert node.private() == layers(one)
    node.launch(other.path, job=8)
    assert node.private() == layers(one) and node.cached() == set() and "has no room for" in node.said(8)
    os.kill(child, signal.SIGKILL)
    children.wait(child)
    node.launch(other.path, job=9)
    assert node.private() == set() and node.cached() == layers(other)


def test_a_source_that_changes_is_another(node: Node, site: Repo) -> None:
    """A user who could read it before its owner closed it does not get at a copy that is made of it later."""
    node.start_service()
    base = add(site, "base")
    restrict(base, GROUP)
    node.launch(base.path)
    held = os.open(base.path, os.O_RDONLY)
    first = sources.find_source(held)
    base.path.chmod(0o400)
    assert first and sources.find_source(held) not in (first, None)
    node.launch(base.path, job=8)
    assert len(list(node.cache.glob("private/data/*/*"))) == 2


def test_another_file_of_the_same_content_gives_its_own_copy(node: Node, site: Repo) -> None:
    node.start_service()
    base = add(site, "base")
    [layer] = layers(base)
    restrict(base, ALICE)
    node.launch(base.path)
    mine = node.root / "mine"
    mine.write_bytes(b"\0" * base.path.stat().st_size)  # bob knows its name and size
    asked = protocol.connect()
    assert asked is not None
    with asked:
        protocol.send_request(asked, layer, os.open(mine, os.O_RDONLY), private=True)
        last = list(protocol.receive_states(asked))[-1]
    assert last.state == "damaged" and last.fd is None


@pytest.mark.parametrize(
    ("line", "trusted"),
    [
        ("36 25 8:17 / /scratch rw,noatime shared:1 - ext4 /dev/sdb1 rw", True),
        ("36 25 8:17 / /home rw shared:1 master:2 - nfs4 server:/home rw,vers=4.2", True),
        ("36 25 8:17 / /g rw - fuse.glusterfs server:/v rw,user_id=0,group_id=0,allow_other", True),
        ("36 25 8:17 / /home/bob/x rw,nosuid,nodev - fuse.bobfs bobfs rw,user_id=1000,group_id=1000", False),
        ("36 25 8:17 / /home/bob/x rw,nosuid,nodev - fuse bobfs rw,user_id=1000,allow_other", False),
        ("36 25 8:1 / / rw - ext4 /dev/sda1 rw", False),
    ],
)
def test_file_systems_on_which_a_user_could_show_anothers_file(line: str, trusted: bool) -> None:
    assert sources.is_mounted_by_root(os.makedev(8, 17), f"22 1 0:5 / /proc rw - proc proc rw\n{line}\n") == trusted


def test_where_a_source_could_be_forged_a_job_copies_for_itself(node: Node, site: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    (node.root / "mounts").write_text("22 1 0:5 / /proc rw - proc proc rw\n")
    monkeypatch.setattr(sources.find_source, "__defaults__", (str(node.root / "mounts"),))
    node.start_service()
    base = add(site, "base")
    restrict(base, ALICE)
    path = node.launch(base.path, here=2)
    assert content(path) == raw_sum() and node.own() == layers(base) and node.private() == node.cached() == set()
    with pytest.raises(PermissionError):
        cannot_open(next(node.root.glob("scratch7/layers")))
