"""The console on a terminal: history first, one typist and several watchers, a key to leave it, and the terminal as it was."""

import contextlib
import os
import pty
import select
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime.documents.vm_state import VmState, encode_state
from pcocc_runtime.errors import PcoccError
from pcocc_runtime.steps import console
from tests.waiting import limit, wait_for

ROOT = Path(__file__).resolve().parents[3]
RUN = (
    "import sys; from pathlib import Path; from pcocc_runtime import naming; naming.job_dir = lambda job: Path(sys.argv[1]);"
    "from pcocc_runtime.steps import console; sys.exit(console.operate(7, 'vm0', console.check_words(sys.argv[2:])))"
)


class SerialLine:
    """QEMU's serial line with a guest that writes what it is sent, in capitals, to a log: one connection at a time."""

    def __init__(self, job: Path) -> None:
        (job / "vm0").mkdir()
        self.log = job / "vm0.console.log"
        self.log.write_bytes(b"booted\r\n")
        (job / "vm0/console.log").symlink_to(self.log)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(job / "vm0/console"))
        self.listener.listen(1)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                connection, _address = self.listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(ConnectionResetError):  # it closed with something unread
                while data := connection.recv(100):
                    self.write(data.upper(), connection)

    def write(self, data: bytes, connection: socket.socket | None = None) -> None:
        if connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.send(data)  # QEMU logs it after that
        with self.log.open("ab") as stream:
            stream.write(data)


class Terminal:
    """A console of its own on a pseudo-terminal."""

    def __init__(self, job: Path, *words: str) -> None:
        self.fd, self.end = pty.openpty()
        self.before = termios.tcgetattr(self.end)
        self.child = subprocess.Popen(
            [sys.executable, "-c", RUN, str(job), *words],
            cwd=ROOT,
            stdin=self.end,
            stdout=self.end,
            stderr=self.end,
            start_new_session=True,
        )
        self.seen = b""

    def expect(self, text: bytes) -> None:
        deadline = time.monotonic() + limit(20)
        while text not in self.seen:
            assert select.select([self.fd], [], [], deadline - time.monotonic())[0], self.seen
            self.seen += os.read(self.fd, 4096)

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def close(self) -> None:
        """End it, however it is."""
        self.child.kill()
        self.child.wait()

    def finish(self) -> int:
        status = self.child.wait(limit(20))
        assert termios.tcgetattr(self.end) == self.before
        os.close(self.fd)
        os.close(self.end)
        return status


@pytest.fixture
def line(tmp_path: Path) -> Iterator[SerialLine]:
    found = SerialLine(tmp_path)
    yield found
    found.listener.close()


def test_one_types_and_others_watch(line: SerialLine, tmp_path: Path) -> None:
    typist = Terminal(tmp_path)
    typist.expect(b"Ctrl-] leaves it")
    typist.expect(b"booted\r\n")
    typist.type(b"hello\x03")
    typist.expect(b"HELLO\x03")
    watcher = Terminal(tmp_path)
    watcher.expect(b"another console of vm0 has the keyboard, so this one watches")
    watcher.expect(b"HELLO\x03")
    watcher.type(b"unheard")
    typist.type(b"more")
    watcher.expect(b"MORE")
    typist.type(b"last\x1dunheard")
    typist.expect(b"console of vm0: left")
    assert typist.finish() == 0
    watcher.expect(b"LAST")
    assert b"UNHEARD" not in watcher.seen
    other = Terminal(tmp_path)
    other.expect(b"Ctrl-] leaves it")
    other.type(b"next")
    watcher.expect(b"NEXT")
    for one in (other, watcher):
        one.type(b"\x1d")
        assert one.finish() == 0


def test_a_console_ends_with_its_vm(line: SerialLine, tmp_path: Path) -> None:
    found = Terminal(tmp_path, "--watch")
    found.expect(b"and only watches")
    line.write(b"the end")
    (tmp_path / "vm0/state").write_text(encode_state(VmState("ended", reason="guest-shutdown")))
    found.expect(b"console of vm0: it has ended: its guest powered it off")
    assert found.finish() == 0 and b"the end" in found.seen


def test_a_console_is_of_one_vm(monkeypatch: pytest.MonkeyPatch) -> None:
    assert console.check_words(["--watch"]) is True and console.check_words([]) is False
    with pytest.raises(PcoccError):
        console.check_words(["x"])
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(PcoccError):
        console.check_words([])


class StoppedLine(SerialLine):
    """The serial line of a guest that is stopped: nothing is read."""

    def serve(self) -> None:
        with self.listener.accept()[0]:
            self.ended.wait()

    def __init__(self, job: Path) -> None:
        self.ended = threading.Event()
        super().__init__(job)


@pytest.mark.thorough
def test_a_guest_that_does_not_read_can_be_left(tmp_path: Path) -> None:
    stopped = StoppedLine(tmp_path)
    found = Terminal(tmp_path)
    found.expect(b"booted\r\n")
    for _ in range(200):  # more than a socket's buffer takes
        found.type(b"x" * 4000)
    found.type(b"\x1d")
    found.expect(b"console of vm0: left")
    assert found.finish() == 0
    stopped.ended.set()
    stopped.listener.close()


def test_what_comes_by_a_pipe_arrives_whole(line: SerialLine, tmp_path: Path) -> None:
    text = b"word " * 20000
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)], cwd=ROOT, input=text, capture_output=True, timeout=limit(60), check=False
    )
    assert done.returncode == 0
    wait_for(lambda: line.log.read_bytes() == b"booted\r\n" + text.upper(), "the guest's answer", 20)


def test_a_console_ends_with_its_terminal(line: SerialLine, tmp_path: Path) -> None:
    found = Terminal(tmp_path)
    found.expect(b"booted\r\n")
    os.close(found.end)
    os.close(found.fd)
    found.child.wait(limit(20))
