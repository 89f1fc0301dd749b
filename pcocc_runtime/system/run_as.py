"""Programs that root runs as a user."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, NamedTuple

from pcocc_runtime.system.drop import Rights, become

_END_SECONDS = 2.0  # for a program that is asked to end


class Finished(NamedTuple):
    """What a program has left: its exit status, and what it wrote."""

    status: int
    stdout: bytes
    stderr: bytes


def run_as(
    rights: Rights, argv: Sequence[str], env: Mapping[str, str], *, seconds: float, most: int = 1 << 26
) -> Finished:
    """Run a program as `started_as` does, and return what it has left.

    OSError when it cannot be started; subprocess.TimeoutExpired when it runs for longer or writes more than
    `most` bytes, after it has been ended.
    """
    with started_as(rights, argv, env) as child:
        assert child.stdout and child.stderr
        found = _collect((child.stdout, child.stderr), most, time.monotonic() + seconds)
        if found is None:
            raise subprocess.TimeoutExpired(argv, seconds)
        return Finished(child.wait(_END_SECONDS), *found)


@contextlib.contextmanager
def started_as(
    rights: Rights, argv: Sequence[str], env: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program as a user, in its own session, with this environment only; the block reads its output.

    It is ended with the block. When this process is interrupted, it gets a SIGINT from here, as it cannot get one
    from the terminal any more. OSError when it cannot be started.
    """
    child = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(env),
        cwd="/", close_fds=True,
        start_new_session=True, preexec_fn=lambda: _begin(rights),
    )  # fmt: skip
    assert child.stdout and child.stderr
    with child.stdout, child.stderr:
        try:
            yield child
        finally:
            _end(child)


def _begin(rights: Rights) -> None:
    # a shell's background command ignores SIGINT, and so would all that it starts
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    become(rights)


def _collect(streams: tuple[IO[bytes], IO[bytes]], most: int, end: float) -> tuple[bytes, bytes] | None:
    """Return all that two pipes deliver; None when it is too much, or not complete by `end` (monotonic clock)."""
    found = {stream: bytearray() for stream in streams}
    with selectors.DefaultSelector() as waiting:
        for stream in streams:
            waiting.register(stream, selectors.EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(max(0.0, end - time.monotonic()))
            for key, _events in ready:
                data = os.read(key.fd, 1 << 16)
                found[key.fileobj] += data  # type: ignore[index]
                if not data:
                    waiting.unregister(key.fileobj)
            if not ready or sum(map(len, found.values())) > most:
                return None
    return bytes(found[streams[0]]), bytes(found[streams[1]])


def _end(child: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGINT, signal.SIGKILL):  # if not even the latter ends it, it is left alone
        if child.poll() is None:
            child.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_END_SECONDS)
