"""The three kinds of locks: which other locks each one conflicts with, and whether a file is still there after waiting
for its lock.
"""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pcocc_runtime.system import locks, shared_locks


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").touch()
    return tmp_path / "file"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[[], int]]:
    """A function that opens the file anew; all are closed at the end."""
    fds: list[int] = []

    def open_file() -> int:
        fds.append(os.open(path, os.O_RDWR))
        return fds[-1]

    yield open_file
    for fd in fds:
        os.close(fd)


def in_child(look: Callable[[], bool]) -> bool:
    """Return what another process finds."""
    child = os.fork()
    if not child:
        try:
            os._exit(0 if look() else 1)
        finally:
            os._exit(2)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1)
    return status == 0


def test_flock_belongs_to_the_open_file(opened: Callable[[], int]) -> None:
    one, other = opened(), opened()
    assert locks.try_flock(one) and locks.try_flock(one)
    assert not locks.try_flock(other) and not locks.try_flock(other, shared=True)
    assert in_child(lambda: locks.try_flock(one)) and not in_child(lambda: locks.try_flock(other))
    assert locks.try_flock(one, shared=True) and locks.try_flock(other, shared=True) and not locks.try_flock(one)


def test_lockf_belongs_to_the_process(opened: Callable[[], int]) -> None:
    one, other = opened(), opened()
    assert shared_locks.try_lockf(one) and shared_locks.try_lockf(other)
    assert not in_child(lambda: shared_locks.try_lockf(one))
    assert shared_locks.find_locked_by_others(other, 0, 1) is None and in_child(
        lambda: shared_locks.find_locked_by_others(other, 0, 1) == 0
    )
    assert locks.try_flock(other)  # which does not conflict with it
    assert not shared_locks.try_range(other, 5)  # which does, even in the same process


def test_ranges_are_of_open_files_and_bytes(opened: Callable[[], int]) -> None:
    one, other, far = opened(), opened(), 1 << 62
    assert shared_locks.try_range(one, far, shared=True) and shared_locks.try_range(other, far, shared=True)
    assert not shared_locks.try_range(other, far) and shared_locks.try_range(other, far + 1)
    assert shared_locks.find_locked(one, far - 10, 20) == far and shared_locks.find_locked(other, far + 1, 20) is None
    shared_locks.unlock_range(other, far)
    assert shared_locks.find_locked(one, far - 10, 20) == far + 1 and shared_locks.try_range(one, far)
    assert shared_locks.find_locked_by_others(opened(), far - 10, 20) == far


def test_a_file_that_was_deleted_or_replaced_is_told(path: Path, opened: Callable[[], int]) -> None:
    fd = opened()
    assert locks.is_at(fd, path)
    path.rename(path.with_name("old"))
    assert not locks.is_at(fd, path)
    path.symlink_to("old")
    assert not locks.is_at(fd, path)
    path.unlink()
    path.touch()
    assert not locks.is_at(fd, path)


def test_a_file_that_another_nfs_client_deleted_is_gone(
    path: Path, opened: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_fd: int) -> os.stat_result:
        raise OSError(number, os.strerror(number))

    fd = opened()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fail)
        number = errno.ESTALE
        assert not locks.is_at(fd, path)
        number = errno.EIO
        with pytest.raises(OSError, match="Input/output"):
            locks.is_at(fd, path)


def test_waiting_ends() -> None:
    answers = iter([False, False, True])
    assert shared_locks.wait_until(lambda: next(answers), 60) and next(answers, None) is None
    assert not shared_locks.wait_until(lambda: False, 0)


def test_who_waits_for_a_lock_that_goes_with_its_file_locks_the_next(tmp_path: Path) -> None:
    """Each holder deletes the file: two that both believed to have the lock would count one round less."""
    path, count = tmp_path / "lock", [0]

    def work() -> None:
        for _ in range(200):
            with locks.locked(path):
                seen = count[0]
                os.sched_yield()
                count[0] = seen + 1
                path.unlink()

    crew = [threading.Thread(target=work) for _ in range(4)]
    for one in crew:
        one.start()
    for one in crew:
        one.join()
    assert count == [800] and not path.exists()


def test_a_lock_is_had_only_if_free(tmp_path: Path) -> None:
    with locks.locked_if_free(tmp_path / "lock") as free:
        assert free
        with locks.locked_if_free(tmp_path / "lock") as again:
            assert not again
        (tmp_path / "lock").unlink()
        with locks.locked_if_free(tmp_path / "lock") as anew:
            assert anew


def test_a_directory_is_locked_itself(tmp_path: Path) -> None:
    with locks.locked_directory(tmp_path):
        fd = os.open(tmp_path, os.O_RDONLY)
        try:
            assert not locks.try_flock(fd)
        finally:
            os.close(fd)
    assert list(tmp_path.iterdir()) == []
