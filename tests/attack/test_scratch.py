"""A scratch directory that everybody uses and may write to: our own directory in it is root's alone, or no job starts."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pcocc_runtime.errors import ConfigError
from pcocc_runtime.system import files, tree_removal, trust
from tests.attack.user import ALICE, BOB, as_user


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A scratch that everybody may write to, as /tmp: mode 1777."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        Path(name).chmod(0o755)
        found = Path(name, "scratch")
        found.mkdir()
        found.chmod(0o1777)
        yield found
        tree_removal.remove_tree(found)


def test_ours_is_made_in_it_and_nobody_else_can_touch_it(scratch: Path) -> None:
    for _time in range(2):
        assert trust.make_root_only(f"{scratch}/pcocc") == f"{scratch}/pcocc"
    info = (scratch / "pcocc").stat()
    assert (info.st_uid, info.st_mode & 0o7777) == (0, 0o755)
    for attack in (
        lambda: (scratch / "pcocc").rename(scratch / "away"),
        lambda: (scratch / "pcocc").rmdir(),
        lambda: (scratch / "pcocc/12").mkdir(),
    ):
        assert not as_user(ALICE, attack)


def own(path: Path) -> None:
    path.mkdir(mode=0o755)


def link(path: Path) -> None:
    path.symlink_to("/etc")


def hole(path: Path) -> None:
    """Lead to a directory of root's through a directory that Alice may change."""
    (path.parent / "way").symlink_to("/run")
    path.symlink_to("way/lock")


PLANTED = {"directory": own, "link": link, "file": Path.touch, "fifo": os.mkfifo, "way": hole}


@pytest.mark.parametrize("what", PLANTED)
@pytest.mark.parametrize("where", ["pcocc", "deep/pcocc"])
def test_what_a_user_has_put_there_first_is_refused(scratch: Path, what: str, where: str) -> None:
    """Otherwise a job's disk would be where Alice can open it, replace it, or have it deleted."""
    planted = scratch / where.partition("/")[0]
    plant: Callable[[Path], object] = PLANTED[what]
    assert as_user(ALICE, lambda: plant(planted))
    before = sorted(os.listdir("/etc"))
    with pytest.raises(ConfigError, match="must be a directory owned by root") as caught:
        trust.make_root_only(f"{scratch}/{where}")
    assert str(caught.value).startswith(str(scratch)) and caught.value.hint
    assert planted.lstat().st_uid == ALICE and sorted(os.listdir("/etc")) == before


def test_once_it_was_taken_over_with_all_that_was_in_it(scratch: Path) -> None:
    """As the jobs' directory was made before: what Alice holds open in it stays open to her."""
    assert as_user(ALICE, lambda: (own(scratch / "pcocc"), own(scratch / "pcocc/13")))
    files.ensure_directory(scratch / "pcocc", 0o755, 0, 0)
    assert (scratch / "pcocc/13").stat().st_uid == ALICE  # where Bob's disk would have been


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o2770])
def test_a_scratch_where_others_may_replace_ours_is_refused(scratch: Path, mode: int) -> None:
    scratch.chmod(mode)
    with pytest.raises(ConfigError, match="must be a directory owned by root"):
        trust.make_root_only(f"{scratch}/pcocc")


def test_nor_may_it_belong_to_another(scratch: Path) -> None:
    os.chown(scratch, BOB, BOB)
    scratch.chmod(0o1755)
    with pytest.raises(ConfigError, match="must be a directory owned by root"):
        trust.make_root_only(f"{scratch}/pcocc")
    scratch.chmod(0o755)
    os.chown(scratch, 0, 0)
    (scratch / "pcocc").mkdir()
    (scratch / "pcocc").chmod(0o1777)  # where a user would be first to make SCRATCH/pcocc/JOB
    with pytest.raises(ConfigError, match="must be a directory owned by root"):
        trust.make_root_only(f"{scratch}/pcocc")


def test_roots_own_links_lead_on(scratch: Path) -> None:
    scratch.chmod(0o755)
    (scratch / "disk").mkdir()
    (scratch / "short").symlink_to("disk")
    (scratch / "long").symlink_to(scratch / "short/../short/deep")
    assert trust.make_root_only(f"{scratch}/short/pcocc") == f"{scratch}/disk/pcocc"
    with pytest.raises(OSError, match="long"):
        trust.make_root_only(f"{scratch}/long/pcocc")  # as before: a link that leads nowhere
    (scratch / "disk/deep").mkdir()
    assert trust.make_root_only(f"{scratch}/long/pcocc") == f"{scratch}/disk/deep/pcocc"
    (scratch / "one").symlink_to("other")
    (scratch / "other").symlink_to("one")
    with pytest.raises(OSError, match="symbolic links"):
        trust.make_root_only(f"{scratch}/one/pcocc")
