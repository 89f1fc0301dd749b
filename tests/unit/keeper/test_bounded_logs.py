"""What is kept of a guest's console and of other logs: the end, however much is written."""

import os
import time
from pathlib import Path

import pytest

from pcocc_runtime.keeper.bounded_logs import BoundedLog, LogWatch

SIZE = 1 << 16


class Qemu:
    """Appends to the file, as QEMU does with `logappend=on`, and has it open all the time."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.written = b""

    def write(self, data: bytes) -> None:
        os.write(self.fd, data)
        self.written += data


def stored(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_the_last_is_kept_and_no_more(tmp_path: Path) -> None:
    log, qemu = BoundedLog(str(tmp_path / "log"), SIZE), Qemu(tmp_path / "log")
    for number in range(3000):
        qemu.write(b"line %d of a guest that says y for ever\n" % number)
        if not number % 100:
            log.has_grown()
            assert stored(tmp_path) <= SIZE + SIZE // 2
            assert qemu.written.endswith(log.read_tail(SIZE // 4)) and len(log.read_tail(SIZE // 4)) == min(
                SIZE // 4, len(qemu.written)
            )
    assert log.read_tail(10) == qemu.written[-10:]


def test_much_at_once_is_cut(tmp_path: Path) -> None:
    log, qemu = BoundedLog(str(tmp_path / "log"), SIZE), Qemu(tmp_path / "log")
    qemu.write(os.urandom(40 * SIZE))
    log.has_grown()
    assert stored(tmp_path) <= SIZE and log.read_tail(1000) == qemu.written[-1000:]


def test_an_idle_guest_is_looked_at_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watch, qemu = (
        LogWatch([BoundedLog(str(tmp_path / name), SIZE) for name in ("none", "log")]),
        Qemu(tmp_path / "log"),
    )
    waits = []
    for _look in range(4):
        now[0] += watch.patience()
        watch.tick()
        waits.append(watch.patience())
    assert waits == [2.0, 4.0, 4.0, 4.0]
    qemu.write(b"x" * SIZE)
    now[0] += 4.0
    watch.tick()
    assert watch.patience() == 1.0 and stored(tmp_path) == SIZE // 2


def test_a_log_that_is_gone_harms_nobody(tmp_path: Path) -> None:
    log = BoundedLog(str(tmp_path / "none/log"), SIZE)
    assert not log.has_grown() and log.read_tail(10) == b""
