"""What a user mounts in the directories of his job: it does not keep them from being removed, and nothing in it is touched."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from pcocc_runtime.node import removal
from pcocc_runtime.system import drop, mounts
from tests.attack.user import ALICE, Fuse, apart, mount, plant
from tests.waiting import limit


@pytest.mark.parametrize("where", [".", "inside", "inside/below"])
@pytest.mark.parametrize("kind", ["fuse", "tmpfs"])
def test_what_a_user_has_mounted_holds_nothing(folder: Path, where: str, kind: str) -> None:
    def scenario() -> None:
        job = folder / "12"
        plant(folder, lambda: os.makedirs("inside/below"))
        if kind == "fuse":
            one = Fuse(str(job / where), ALICE)
        else:
            mount("tmpfs", str(job / where), "tmpfs")
            (job / where / "precious").touch()
            seen = os.open(job / where, os.O_RDONLY | os.O_DIRECTORY)
        if kind == "fuse":
            with pytest.raises(PermissionError):
                shutil.rmtree(job)  # as root did before
        removal.set_aside(job)
        assert os.listdir(folder) == [removal.SET_ASIDE]
        assert removal.finish([folder], limit(2)) and os.listdir(folder) == []
        assert str(folder) not in Path("/proc/self/mountinfo").read_text()
        if kind == "fuse":
            one.close()
        else:
            assert os.listdir(seen) == ["precious"]  # nothing in it was deleted: it may be the user's home

    apart(scenario)


def test_a_mount_covers_a_mount(folder: Path) -> None:
    def scenario() -> None:
        for _time in range(50):
            mount("tmpfs", str(folder / "12"), "tmpfs")
        removal.set_aside(folder / "12")
        assert removal.finish([folder], limit(60)) and os.listdir(folder) == []

    apart(scenario)


def test_a_root_of_the_kernels_own_stays_and_all_else_goes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scenario() -> None:
        mount("tmpfs", str(folder / "12"), "tmpfs")
        (folder / "12/a b\\").mkdir()
        mount("tmpfs", str(folder / "12/a b\\"), "tmpfs")
        listed = [line.split(b" ", 5) for line in Path("/proc/self/mountinfo").read_bytes().splitlines()]
        assert mounts._plan_detaching(listed) == [b"/"]
        bare = [[one[0], one[0], *one[2:]] if one[4] == b"/" else one for one in listed]
        planned = mounts._plan_detaching(bare)
        assert os.fsencode(folder / "12/a b\\") in planned and b"/" not in planned
        monkeypatch.setattr(mounts, "_plan_detaching", lambda found: planned)
        removal.set_aside(folder / "12")
        assert removal.finish([folder], limit(60)) and os.listdir(folder) == []

    apart(scenario)


def test_where_mounts_stay_nothing_is_deleted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "_plan_detaching", lambda found: [])
    plant(folder, lambda: os.makedirs("d/d/d"))
    removal.set_aside(folder / "12")
    assert not removal.finish([folder], 5)
    assert [path.name for path in (folder / removal.SET_ASIDE).glob("*/*")] == ["d"]


def test_a_deletion_that_hangs_is_left_to_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was when root still saw users' mounts: Alice's process hangs in the kernel for good, in what she has mounted."""

    def scenario() -> None:
        plant(folder, lambda: os.makedirs("inside"))
        one = Fuse(str(folder / "12/inside"), ALICE)
        threading.Thread(target=one.swallow, daemon=True).start()
        monkeypatch.setattr(removal, "_DEAD_SECONDS", 0.1)
        begin = time.monotonic()

        def hang() -> None:
            one.close()  # this process's own copy: otherwise the program would end only when this process does
            drop.become(drop.Rights(ALICE, ALICE))
            os.listdir(folder / "12/inside")

        assert not removal._run_apart(hang, 0.3)
        assert time.monotonic() - begin < limit(10)
        one.close()

    (folder / "12").chmod(0o755)
    apart(scenario)
