"""What a user leaves in the directories of his job to break the node for everybody: root never walks through it.

`once` does what root did before: it walked through it, as shutil.rmtree does.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pcocc_runtime.node import removal
from pcocc_runtime.system import process, tree_removal, trees
from tests.attack.planted import kinds, nest, numbers, shut
from tests.attack.user import ALICE, BOB, apart, as_user, mount, plant
from tests.waiting import limit


def once(path: Path) -> None:
    shutil.rmtree(path)


TREES = [lambda: nest(1200), lambda: nest(5000), shut, numbers, kinds, lambda: None]
NAMES = ["1,200 deep", "5,000 deep", "shut", "numbers", "kinds", "empty"]


@pytest.mark.parametrize("attack", TREES, ids=NAMES)
def test_a_tree_is_out_of_the_way_at_once_and_gone_soon(folder: Path, attack: Callable[[], object]) -> None:
    before = len(os.listdir("/etc")) // 2  # others, such as useradd, may change something there meanwhile
    plant(folder, attack)
    removal.set_aside(folder / "12")
    assert os.listdir(folder) == [removal.SET_ASIDE]
    assert (folder / removal.SET_ASIDE).stat().st_mode & 0o777 == 0o700
    assert removal.finish([folder], limit(60)) and os.listdir(folder) == []
    removal.set_aside(folder / "12")  # may run twice
    assert removal.finish([folder], 1) and len(os.listdir("/etc")) > before and Path("/etc/passwd").exists()


def test_once_a_deep_tree_stopped_root(folder: Path) -> None:
    plant(folder, lambda: nest(1200))
    with pytest.raises(RecursionError):
        once(folder / "12")


def test_many_files_take_their_share_of_time_only(folder: Path) -> None:
    plant(folder, lambda: [Path(f"{number:05}").touch() for number in range(30000)])
    removal.set_aside(folder / "12")
    assert os.listdir(folder) == [removal.SET_ASIDE]
    left = None
    for _helper in range(1000):
        if removal.finish([folder], 0.05):
            break
        (only,) = (folder / removal.SET_ASIDE).iterdir()
        assert left is None or len(os.listdir(only)) <= left
        left = len(os.listdir(only))
    assert os.listdir(folder) == []
    assert left, "it took one time only, so nothing was tried"


def test_directories_that_cannot_be_moved_go_too(folder: Path) -> None:
    """Nor can those that are counted for another project (XFS), which a user may choose, or have a key of their own (ext4)."""

    def scenario() -> None:
        plant(folder, lambda: (numbers(), nest(200)))
        for name in ("upper", "work"):
            (folder / name).mkdir()
            os.chown(folder / name, ALICE, ALICE)
        options = f"lowerdir={folder}/12,upperdir={folder}/upper,workdir={folder}/work,redirect_dir=off"
        mount("overlay", str(folder / "12"), "overlay", 0, options)
        with pytest.raises(OSError, match="cross-device"):
            (folder / "12/d/d").rename(folder / "12/other")
        assert as_user(ALICE, lambda: trees.empty(os.open(folder / "12", trees.DIRECTORY)))
        assert os.listdir(folder / "12") == []

    apart(scenario)


SWAP = """
import os
os.mkfifo("fifo")
os.makedirs("directory/below")
print("ready", flush=True)
while True:
    for name in ("directory", "fifo"):
        try:
            os.rename(name, "other"); os.mkdir(name); os.rename("other", name + "/moved"); os.mkfifo("new"); os.rename("new", "x")
        except OSError:
            pass
"""


def start_as_alice(folder: Path, script: str) -> subprocess.Popen[bytes]:
    """Start a program of Alice's in her job's directory."""
    child = subprocess.Popen(
        [sys.executable, "-ISc", script], cwd=folder / "12", stdout=subprocess.PIPE, user=ALICE, group=ALICE, extra_groups=[]
    )
    assert child.stdout and child.stdout.readline() == b"ready\n"
    return child


def test_a_process_that_changes_the_tree_meanwhile_only_keeps_it(folder: Path) -> None:
    with start_as_alice(folder, SWAP) as attacker:
        removal.set_aside(folder / "12")
        assert os.listdir(folder) == [removal.SET_ASIDE]
        begin = time.monotonic()
        removal.finish([folder], 0.5)
        assert time.monotonic() - begin < limit(10)
        attacker.kill()
    assert removal.finish([folder], limit(60)) and os.listdir(folder) == []


@pytest.mark.parametrize("new", ["fifo", "link", "file"])
def test_a_directory_may_become_anything_at_any_moment(folder: Path, monkeypatch: pytest.MonkeyPatch, new: str) -> None:
    """The test makes sure of the moment: just before root opens the directory that it has seen."""
    victim, real = folder / "12/victim", os.open

    def swap(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "victim" and victim.is_dir():
            victim.rename(folder / "12/away")
            {"fifo": os.mkfifo, "link": lambda name: os.symlink("/etc", name), "file": lambda name: Path(name).touch()}[new](
                victim
            )
        return real(path, flags, mode, dir_fd=dir_fd)

    (victim / "below").mkdir(parents=True)
    monkeypatch.setattr(os, "open", swap)
    if new != "fifo":  # on which root waited for ever
        with pytest.raises(OSError, match=r"link|irectory"):
            once(folder / "12")
        shutil.rmtree(folder / "12/away")
        victim.unlink()
        (victim / "below").mkdir(parents=True)
    tree_removal.remove_tree(folder / "12")
    assert os.listdir(folder) == [] and Path("/etc/passwd").exists()


def test_the_user_stops_the_process_that_deletes_his_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is his, so he can; root waits for its time, and what others have left goes. The moment is made certain: its first."""
    (folder / "13").mkdir()
    os.chown(folder / "13", BOB, BOB)
    real = trees.empty

    def stopped(top: int) -> None:
        if os.getuid() == ALICE:
            os.kill(os.getpid(), signal.SIGSTOP)
        real(top)

    plant(folder, lambda: nest(3))
    for job in ("12", "13"):
        removal.set_aside(folder / job)
    monkeypatch.setattr(trees, "empty", stopped)
    left = ["13"]
    for _helper in range(100):  # the order is random: one of the helpers begins with Bob's
        if "13" not in left:
            break
        removal.finish([folder], 1)
        left = sorted(path.name[:2] for path in (folder / removal.SET_ASIDE).iterdir())
    assert left == ["12"]
    assert process.find_in_cgroup("/", ALICE) == []  # the deleting process was given up, and killed
    monkeypatch.setattr(trees, "empty", real)
    assert removal.finish([folder], limit(60)) and os.listdir(folder) == []


def test_who_deletes_has_the_owners_rights_and_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hears, tells = os.pipe()

    def look(_top: int) -> None:
        seen = os.getresuid(), os.getresgid(), os.getgroups(), os.getsid(0) == os.getpid(), os.path.isdir("/proc/self")
        os.write(tells, json.dumps(seen).encode())

    monkeypatch.setattr(trees, "empty", look)
    monkeypatch.setattr(removal, "close_all_but", lambda kept: None)  # the next test would see it
    removal.set_aside(folder / "12")
    assert removal.finish([folder], limit(60))
    os.close(tells)
    with open(hears) as stream:
        assert json.load(stream) == [[ALICE] * 3, [ALICE] * 3, [], True, False]  # no mounts, so no /proc


def test_no_descriptor_goes_along() -> None:
    kept = os.open("/", os.O_PATH)

    def look() -> None:
        removal.close_all_but(kept)
        for fd in range(256):
            if fd != kept:
                with pytest.raises(OSError, match="Bad file"):
                    os.fstat(fd)
        os.fstat(kept)

    assert removal._run_apart(look, limit(60))
    os.close(kept)


def test_roots_folder_cannot_be_made_by_somebody_else(folder: Path) -> None:
    """Where everybody may write to a site's scratch (mode 1777), a user may take the name first."""
    (folder / "precious").mkdir()
    (folder / "precious/file").touch()
    (folder / removal.SET_ASIDE).symlink_to("precious")
    with pytest.raises(OSError, match=r"\.aside"):
        removal.set_aside(folder / "12")
    assert not removal.finish([folder], limit(60)) and (folder / "precious/file").exists()
    (folder / removal.SET_ASIDE).unlink()
    (folder / removal.SET_ASIDE).mkdir()
    os.chown(folder / removal.SET_ASIDE, BOB, BOB)
    os.link(folder / "precious/file", folder / removal.SET_ASIDE / "file")
    removal.finish([folder], limit(60))
    assert (folder / removal.SET_ASIDE / "file").exists()
    removal.set_aside(folder / "12")
    assert (folder / removal.SET_ASIDE).stat().st_uid == 0
    assert removal.finish([folder], limit(60)) and (folder / "precious/file").exists()
    tree_removal.remove_tree(folder / "precious")


def test_files_of_another_user_stay_and_hold_up_nobody(folder: Path) -> None:
    """Alice lets Bob leave something that she cannot delete: it stays in root's folder, where it is in nobody's way."""
    plant(folder, lambda: (os.mkdir("shared"), os.chmod("shared", 0o777), os.chmod(".", 0o755)))
    assert as_user(BOB, lambda: os.makedirs(folder / "12/shared/bobs/own"))
    removal.set_aside(folder / "12")
    assert not removal.finish([folder], limit(60))
    assert os.listdir(folder) == [removal.SET_ASIDE]


def test_a_file_of_roots_in_a_users_directory_goes_too(folder: Path) -> None:
    (folder / "12/node.json").touch()
    removal.set_aside(folder / "12")
    assert removal.finish([folder], limit(60)) and os.listdir(folder) == []


def test_what_has_a_jobs_name_and_is_no_directory_goes_too(folder: Path) -> None:
    (folder / "12").rmdir()
    (folder / "12").symlink_to("/etc")
    removal.set_aside(folder / "12")
    assert removal.finish([folder], limit(60)) and os.listdir(folder) == [] and Path("/etc/passwd").exists()


def test_helpers_at_the_same_time(folder: Path) -> None:
    """Two helpers remove and make the same folder at the same time."""
    for job in range(100, 160):
        (folder / str(job)).mkdir()
    (folder / "12").rmdir()

    def work(jobs: range) -> None:
        for job in jobs:
            removal.set_aside(folder / str(job))
            removal.finish([folder], limit(60))

    children = []
    for jobs in (range(100, 160, 2), range(101, 160, 2)):
        children.append(os.fork())
        if children[-1] == 0:
            status = 1
            try:
                work(jobs)
                status = 0
            finally:
                os._exit(status)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert removal.finish([folder], limit(60)) and os.listdir(folder) == []


@pytest.mark.parametrize("call", ["mkdir", "open", "fchown", "rename"])
def test_another_helper_removes_the_folder_before_any_step(folder: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    real, left = getattr(os, call), [1, 2]

    def late(*args: Any, **more: Any) -> Any:
        if left:
            left.pop()
            with contextlib.suppress(FileNotFoundError):
                (folder / removal.SET_ASIDE).rmdir()
        return real(*args, **more)

    monkeypatch.setattr(os, call, late)
    removal.set_aside(folder / "12")
    monkeypatch.undo()
    assert len(left) < 2 and not (folder / "12").exists() and removal.finish([folder], limit(60))


def test_a_tree_of_ones_own_is_removed_as_before(tmp_path: Path) -> None:
    for attack in (lambda: nest(1500), numbers, kinds):
        (tmp_path / "tree").mkdir()
        os.chdir(tmp_path / "tree")
        attack()
        os.chdir("/")
        tree_removal.remove_tree(tmp_path / "tree")
        assert os.listdir(tmp_path) == []
    tree_removal.remove_tree(tmp_path / "tree")
    (tmp_path / "link").symlink_to("/etc")
    tree_removal.remove_tree(tmp_path / "link")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        tree_removal.remove_tree(tmp_path / "file")


def test_nothing_of_a_helper_outlives_it() -> None:
    """The process that deletes for a helper is killed together with it."""
    hears, tells = os.pipe()
    helper = os.fork()
    if helper == 0:
        removal._run_apart(lambda: (os.write(tells, b"!"), signal.pause()), 3600)
        os._exit(1)
    os.close(tells)
    with open(hears, "rb") as stream:
        assert stream.read(1) == b"!"
        os.kill(helper, signal.SIGKILL)
        os.waitpid(helper, 0)
        assert stream.read() == b""  # nobody holds the other end any more
