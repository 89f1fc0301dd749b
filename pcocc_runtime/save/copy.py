"""Copies a large local file: the kernel copies, one thread computes the sum, another has it written to disk."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from pcocc_runtime.progress import Advance
from pcocc_runtime.system.copy import begin_sum, copy_extents, read_pieces

_T = TypeVar("_T")


def copy_layer(
    source: Path, target: Path, change_head: Callable[[bytes], bytes], head_size: int, watch: Advance,
    look: Callable[[], None], then: Callable[[], _T]
) -> tuple[str, _T]:
    """Copy a file that nobody writes; return the sha256 of the copy, which is on disk, and what `then` returned.

    `change_head` turns the first `head_size` bytes into those of the copy. Holes stay holes. `look` is called
    when everything has been copied, `then` when the file may change again.
    """
    with open(source, "rb", buffering=0) as reader, open(target, "xb", buffering=0) as writer:
        total = os.fstat(reader.fileno()).st_size
        head = change_head(reader.read(head_size))
        writer.write(head)
        writer.truncate(total)
        with _Helpers() as helpers:
            sums = helpers.start(lambda stop: _hash(reader.fileno(), head, stop))
            helpers.start(lambda stop: _flush(writer.fileno(), stop))
            for done in copy_extents(reader.fileno(), writer.fileno(), len(head), total):
                with helpers.signals:
                    watch(done, total)
            with helpers.signals:
                look()
            while not sums:
                helpers.pause()
            with helpers.signals:
                result = then()
        os.fsync(writer.fileno())
    return sums[0], result


class _HeldSignals:
    """A block in which signal handlers run at once, also for signals that have been waiting."""

    def __init__(self) -> None:
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def hear(self) -> None:
        """Let handlers run."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    def hold(self) -> None:
        """Let signals wait."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def __enter__(self) -> None:
        self.hear()

    def __exit__(self, *_error: object) -> None:
        self.hold()


class _Helpers:
    """Threads that end with the block; what goes wrong in one is raised from `pause`, or at the end.

    In the block, signals wait for a `with signals` or for `pause`. A handler that raises inside threading's code
    would make it lose a thread, which then runs on while the interpreter ends and may crash it, or it would leave
    a lock taken for good (CPython 3.11).
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._errors: list[Exception] = []
        self._threads: list[threading.Thread] = []
        self.signals = _HeldSignals()

    def start(self, work: Callable[[threading.Event], str]) -> list[str]:
        """Start a thread; what it returns is put into the list."""
        results: list[str] = []

        def run() -> None:
            try:
                results.append(work(self._stop))
            except Exception as error:  # raised by `pause`: otherwise we would wait for a result that never comes
                self._errors.append(error)

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()
        return results

    def pause(self) -> None:
        """Let the threads work for a moment; signals are heard after it."""
        self._stop.wait(0.01)
        with self.signals:
            pass
        for error in self._errors:
            raise error

    def __enter__(self) -> _Helpers:
        try:
            self.signals.hold()
        except BaseException:  # a handler's
            self.signals.hear()
            raise
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            self.signals.hold()
        finally:
            self._stop.set()
            while self._threads:
                # pop, to forget it now: an exception of a handler is lost while a thread's object is deleted
                self._threads.pop().join()
            self.signals.hear()
        if _error is None:
            for error in self._errors:
                raise error


def _hash(fd: int, head: bytes, stop: threading.Event) -> str:
    machine = begin_sum()
    machine.update(head)
    for piece in read_pieces(fd, len(head)):
        if stop.is_set():
            break
        machine.update(piece)
    return machine.hexdigest()


def _flush(fd: int, stop: threading.Event) -> str:
    """Have the file written to disk as it grows, not all of it at the end."""
    while not stop.wait(0.1):
        os.fdatasync(fd)
    return ""
