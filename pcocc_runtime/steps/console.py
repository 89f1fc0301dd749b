"""The operation `@console`: a VM's serial console on the task's terminal; one task at a time can type.

All read the file that QEMU writes. The one that can type also has a connection to QEMU's serial line, which QEMU
gives to one process at a time: a lock in the VM's directory says whether it is taken.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import termios
import time
import tty
from collections.abc import Sequence
from typing import Any

from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.steps.console_history import ConsoleHistory
from pcocc_runtime.steps.nc import write_all
from pcocc_runtime.steps.qemu import find_end, vm_directory
from pcocc_runtime.system.locks import try_flock

DETACH, DETACH_NAME = b"\x1d", "Ctrl-]"
WATCH = "--watch"
_SECONDS = 0.05  # between two looks at the file: nothing announces what is added
_PIECE = 1 << 16
_LAST_SECONDS = 5.0  # for what was typed last, if the guest does not read
_HISTORY = 1 << 16  # bytes of earlier output to show, at most


def check_words(words: Sequence[str]) -> bool:
    """Return whether only to watch."""
    if list(words) not in ([], [WATCH]):
        raise RequestError(f"@console takes {WATCH} or nothing", "this is what 'pcocc console' runs")
    if int(os.environ.get("SLURM_STEP_NUM_TASKS") or "1") > 1:
        raise RequestError("a console shows one VM only", "name one: vm0")
    return bool(words)


def operate(job: int, vm: str, watch: bool) -> int:
    """Show the console until the VM ends, the input ends, or the key to detach is pressed."""
    directory = vm_directory(job, vm)
    if (reason := find_end(directory)) is not None:
        raise NodeError(f"{vm} has ended: {reason}", "'pcocc log' shows what it has written")
    line = None if watch else take_line(directory, vm)
    how = f"{DETACH_NAME} leaves it" + ("" if line else ", and only watches")
    os.write(2, f"console of {vm}: {how}{_size()}\r\n".encode())
    saved = _become_raw()
    try:
        ended = Console(directory, line).run()
    finally:
        if saved:
            with contextlib.suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(0, termios.TCSANOW, saved)
    os.write(2, f"\r\nconsole of {vm}: {'it has ended: ' + ended if ended else 'left'}\r\n".encode())
    return 0


def take_line(directory: str, vm: str) -> socket.socket | None:
    """Return a connection to the serial line; None when another task has it, which the user is told."""
    lock = os.open(f"{directory}/console.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not try_flock(lock):
        os.close(lock)
        os.write(
            2, f"pcocc: note: another console of {vm} has the keyboard, so this one watches\r\n".encode()
        )
        return None
    line = socket.socket(socket.AF_UNIX)
    try:
        line.connect(f"{directory}/console")  # the lock stays until this process ends
    except (FileNotFoundError, ConnectionRefusedError):  # QEMU is gone, and its end not written yet
        line.close()
        os.close(lock)
        raise NodeError(f"{vm} has just ended, or has not started yet", "'pcocc ps -l' says which") from None
    line.setblocking(False)  # a guest that is stopped reads nothing
    return line


def _size() -> str:
    try:
        columns, lines = os.get_terminal_size(1)
    except OSError:
        return ""
    return (
        f"; its size is unknown to the guest: type 'stty rows {lines} cols {columns}' there"
        if lines
        else ""
    )


def _become_raw() -> list[Any] | None:
    try:
        saved = termios.tcgetattr(0)
        tty.setraw(0, termios.TCSANOW)
    except termios.error:
        return None
    return saved


class Console:
    """The console's two directions; `line` is None when this task only watches."""

    def __init__(self, directory: str, line: socket.socket | None) -> None:
        self.directory, self.line = directory, line
        self.typed = b""  # and not sent yet
        self.history = ConsoleHistory(directory)

    def run(self) -> str | None:
        """Pass on both directions; return why the VM has ended, None when it was left."""
        write_all(1, self.history.read_all()[-_HISTORY:])
        while True:
            line = [self.line] if self.line else []
            watched: list[Any] = [*([0] if self._has_room() else []), *line]
            ready, free, _failed = select.select(watched, line if self.typed else [], [], _SECONDS)
            if self.line in ready:
                self._drain()
            if self.line in free:
                self._send()
            write_all(1, self.history.read_new())
            if 0 in ready and self._type():
                return None
            ended = find_end(self.directory)
            if ended is not None or self.history.has_ended():
                write_all(1, self.history.read_new())
                return ended or "its job has"

    def _drain(self) -> None:
        """Read and drop what the line says: it is in the file, too, but arrives here first."""
        assert self.line
        try:
            gone = not self.line.recv(_PIECE)
        except OSError:
            gone = True
        if gone:
            self.line.close()
            self.line = None

    def _has_room(self) -> bool:
        """Tell whether to read what is typed: always at a terminal, whose user may want to leave."""
        return len(self.typed) < _PIECE or os.isatty(0)

    def _type(self) -> bool:
        """Take what was typed; tell whether that was the key to detach, or the end of the terminal."""
        try:
            data = os.read(0, 4096)
        except OSError:
            data = b""
        typed, key, _rest = data.partition(DETACH)
        if self.line and len(self.typed) < _PIECE:
            self.typed += typed
            self._send()
        if data and not key:
            return False
        deadline = time.monotonic() + _LAST_SECONDS
        while self.line and self.typed and time.monotonic() < deadline:
            select.select([], [self.line], [], _LAST_SECONDS)
            self._send()
        return True

    def _send(self) -> None:
        try:
            assert self.line
            self.typed = self.typed[self.line.send(self.typed) :]
        except BlockingIOError:
            pass
        except OSError:
            self.line, self.typed = None, b""
