"""The keeper's ssh connection to its guest, which the VM's steps share, and the end of what a task leaves in the guest.

A step's task (steps/reaching.py) connects to the socket `attach` in the VM's directory, sends its token as a
line, and gets `UP` once the connection stands. However the task ends, its socket closes with it; unless it
has said `DONE` before, every process in the guest that carries its token is then ended. The connection is
ssh's own shared one (ssh_config(5), ControlMaster), over the TCP socket that root made for the keeper inside
the job's network namespace.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import time

from pcocc_runtime.documents.login import FORMER_KEY_FILE, KEY_FILE, NEW_KEYS_FILE
from pcocc_runtime.documents.record import TYPE_CHECKING
from pcocc_runtime.documents.vm_state import DONE, ENDED, UP
from pcocc_runtime.guest.script import (
    KEYS_TAKEN,
    KEYS_TAKEN_AS_USER,
    parse_mount_look,
    render_mount_look,
    render_sweep,
    render_taking,
)
from pcocc_runtime.guest.ssh import ssh_argv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Literal

    from pcocc_runtime.documents.vm import VmFacts

SSH_LOG = "ssh.log"  # in the VM's directory
PROBE_INTERVAL = 0.1  # seconds between two looks for the guest's sshd
# seconds until sshd is asked again: TCP itself repeats a first packet without an answer only after a second
ASK_AGAIN = 0.15
BANNER_SECONDS = 5.0  # sshd starts a process before it speaks, which takes long in an emulated guest
# use the shared connection, or fail
_OVER_IT = ("ControlMaster=no", "ProxyCommand=false", "LogLevel=ERROR")
_ESTABLISHED = 1  # TCP_ESTABLISHED, linux/tcp_states.h
_TOKEN = re.compile(rb"[0-9]+\.[0-9]+\.[0-9]+\.\n")
# seconds between two looks whether ssh has made its control socket: nothing announces that
_INTERVAL = 0.02
_LOST = 255  # ssh's own exit status: the connection was lost
_RETRY = 0.3  # seconds until a guest that refused the login is asked again
_SWEEP_DELAY = 1.0  # seconds after a task's end: a command that has not ended in order by then is ended
_LOOK_PATIENCE = 5.0  # seconds that tasks wait for what the guest says of its mounts
_LONGEST_LOOK = 65536  # bytes that it may say, which a pipe holds
_TAKE_PATIENCE = 60.0  # seconds that a guest has to take the job's keys
_SWEEP_PATIENCE = 60.0  # seconds of asking a guest that no longer answers, to end what tasks left


class SshProbe:
    """Looks for the guest's sshd through a TCP socket that root made inside the job's network namespace."""

    def __init__(self, fd: int, address: str) -> None:
        self.socket = socket.socket(fileno=fd)
        self.address = (address, 22)
        self.tried = 0.0
        self.reset()

    def reset(self) -> None:
        """Make the socket unconnected again, also in state SYN_SENT: connect(2) with AF_UNSPEC."""
        import ctypes

        self.socket.setblocking(False)
        ctypes.CDLL(None).connect(self.socket.fileno(), bytes(16), 16)

    def answers(self) -> bool:
        """Look once, without waiting; true once sshd has sent its banner, which is left to be read."""
        try:
            return self.socket.recv(4, socket.MSG_PEEK) == b"SSH-" or self._again()
        except BlockingIOError:
            return (
                time.monotonic() - self.tried > (BANNER_SECONDS if self._is_connected() else ASK_AGAIN)
                and self._again()
            )
        except OSError:
            return self._again()

    def _is_connected(self) -> bool:
        return self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED

    def _again(self) -> bool:
        self.reset()
        self.tried = time.monotonic()
        self.socket.connect_ex(self.address)
        return False


class SharedSsh:
    """The shared connection, its tasks, and what they left: driven by the keeper's selector and `turn`.

    A guest that goes on from a checkpoint takes the job's keys (guest/new_keys.py) before it counts as answering. That
    is `due`, then `under way`, at last `done`; or it has `failed`, and is tried again for the next task.
    """

    def __init__(
        self, facts: VmFacts, selector: selectors.BaseSelector, probe: SshProbe,
        tell_unmounted: Callable[[str, str, bool], None], tell_keys: Callable[[int], None]
    ) -> None:
        self.directory = directory = facts.directory
        self.selector, self.probe = selector, probe
        self.control, self.log = f"{directory}/ssh", f"{directory}/{SSH_LOG}"
        self.user, self.address = facts.user, facts.address
        self.tell_keys = tell_keys  # is called with the exit status of a guest that has not taken all keys
        self.goes_on = os.path.exists(f"{directory}/{FORMER_KEY_FILE}")
        self.taking: Literal["due", "under way", "failed", "done"] = "due" if self.goes_on else "done"
        self.taker, self.take_until = 0, 0.0
        # probing: we look for sshd; opening: ssh logs in
        self.state: Literal["down", "probing", "opening", "up"] = "down"
        self.master = self.sweeper = 0
        self.still = False
        self.retry = self.sweep_at = self.give_up = 0.0
        self.mounts, self.tell_unmounted = facts.mounts, tell_unmounted
        self.looking_until: float | None = None  # end of the look at the guest's mounts, None outside of it
        self.tasks: dict[socket.socket, bytes] = {}
        self.told: set[socket.socket] = set()
        self.left: list[bytes] = []  # tokens of tasks that ended
        self.listener = _listen(f"{directory}/attach")
        selector.register(self.listener, selectors.EVENT_READ, self._accept)

    def patience(self) -> float | None:
        """Return the seconds until `turn` has something to do, None for never."""
        if self.state == "opening":
            return _INTERVAL
        if self.taker:
            return max(self.take_until - time.monotonic(), 0.0)
        if self.looking_until is not None:
            return max(self.looking_until - time.monotonic(), 0.0)
        if self.state == "probing" or self._is_wanted():
            return PROBE_INTERVAL
        return None

    def turn(self) -> None:
        """Take the next step of whatever is under way; never waits."""
        now = time.monotonic()
        if self.state == "opening" and os.path.exists(self.control):
            self.state = "up"
            self._prepare()
        if self.taker and now >= self.take_until:
            os.kill(self.taker, signal.SIGKILL)
            self.take_until = now + _TAKE_PATIENCE
        if self.looking_until is not None and now >= self.looking_until:
            self._stop_looking()
        if self.state == "down" and self._is_wanted() and now >= self.retry:
            self.state = "probing"
        if self.state == "probing" and self.probe.answers():
            self.open()
        if self.state == "up" and self.left and not self.sweeper and now >= self.sweep_at:
            self._sweep()

    def open(self) -> None:
        """Have ssh log in over the connection on which sshd has just sent its banner."""
        self.probe.socket.setblocking(True)
        self.probe.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # `-`: the connection is ssh's stdin and stdout
        options = ("ControlMaster=yes", "ProxyCommand=-", "LogLevel=ERROR")
        self.state = "opening"
        self.master = self._start(
            ssh_argv(*self._guest(), self.control, options, ("-N",)), self.probe.socket.fileno(), self._down
        )
        if not self.master:
            self._down(0)

    def tell_end(self, reason: str) -> None:
        """Tell the tasks why the VM ends; they could not read it: a job's files go with its last VM on the node."""
        self._send(self.tasks, ENDED + reason.encode() + b"\n")

    def close(self) -> None:
        """End the shared connection: the VM has ended."""
        if self.master:
            os.kill(self.master, signal.SIGTERM)
            os.kill(self.master, signal.SIGCONT)

    def stand_still(self, still: bool) -> None:
        """Have the shared connection stand still with its guest: ssh gives up one that is silent for 15 seconds."""
        if still != self.still and self.master:
            self.still = still
            os.kill(self.master, signal.SIGSTOP if still else signal.SIGCONT)

    def has_begun(self) -> bool:
        """Tell whether a guest that goes on has taken the job's keys, or could not: tasks can use the connection."""
        self.goes_on = self.goes_on and not (self.state == "up" and self.taking in ("done", "failed"))
        return not self.goes_on

    def _guest(self) -> tuple[str, str, str, str]:
        """Return who logs in where, by which key, and ssh's log."""
        job = os.path.dirname(self.directory)
        key = f"{job}/{KEY_FILE}" if self.taking == "done" else f"{self.directory}/{FORMER_KEY_FILE}"
        return self.user, self.address, key, self.log

    def _is_wanted(self) -> bool:
        return self.goes_on or len(self.told) < len(self.tasks) or (bool(self.left) and time.monotonic() < self.give_up)

    def _accept(self) -> None:
        try:
            task, _address = self.listener.accept()
        except OSError:
            return  # it has gone again
        task.setblocking(False)
        self.tasks[task] = b""
        self.selector.register(task, selectors.EVENT_READ, lambda: self._hear(task))
        if self.state == "up" and self.taking == "failed":
            self._prepare()
        elif self.state == "up":
            self._tell()

    def _hear(self, task: socket.socket) -> None:
        try:
            data = task.recv(64)
        except OSError:
            data = b""
        for line in data.splitlines(keepends=True):  # short, and sent whole: two may have come at once
            if _TOKEN.fullmatch(line):
                self.tasks[task] = line.strip()
            elif line == DONE:
                self.tasks[task] = b""
        if data:
            return
        self.selector.unregister(task)
        task.close()
        self.told.discard(task)
        token = self.tasks.pop(task)
        if token:
            self.left.append(token)
            self.sweep_at = time.monotonic() + _SWEEP_DELAY
            self.give_up = self.sweep_at + _SWEEP_PATIENCE

    def _prepare(self) -> None:
        """Do what comes before the first task."""
        if self.taking in ("due", "failed"):
            self._take_keys()
            return
        self._look_at_mounts()
        self._tell()

    def _take_keys(self) -> None:
        """Have a guest that goes on from a checkpoint take the keys of this job, in place of those that it knows."""
        self.taking, self.take_until = "under way", time.monotonic() + _TAKE_PATIENCE
        argv = ssh_argv(*self._guest(), self.control, _OVER_IT, (render_taking(time.time()),))
        text = os.open(f"{self.directory}/{NEW_KEYS_FILE}", os.O_RDONLY | os.O_CLOEXEC)
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self.taker = self._start(argv, text, self._note_taken, null)
        os.close(text)
        os.close(null)
        if not self.taker:
            self._note_taken(1)

    def _note_taken(self, status: int) -> None:
        self.taker = 0
        if status == _LOST:
            self.taking = "due"  # when the connection stands again
            return
        self.taking = "done" if status in (KEYS_TAKEN, KEYS_TAKEN_AS_USER) else "failed"
        if self.taking == "done":
            os.unlink(f"{self.directory}/{FORMER_KEY_FILE}")
            os.unlink(f"{self.directory}/{NEW_KEYS_FILE}")
        if status != KEYS_TAKEN:
            self.tell_keys(status)
        self._look_at_mounts()
        self._tell()

    def _look_at_mounts(self) -> None:
        """Once, before the first task, ask the guest which exported directories it has not mounted, and report each."""
        mounts, self.mounts = self.mounts, {}
        if not mounts:
            return
        reader, writer = os.pipe2(os.O_CLOEXEC)

        def looked(_status: int) -> None:
            os.set_blocking(reader, False)
            try:
                said = os.read(reader, _LONGEST_LOOK).decode(errors="replace")
            except BlockingIOError:
                said = ""
            os.close(reader)
            for tag, kind, known in parse_mount_look(said, mounts):
                self.tell_unmounted(tag, kind, known)
            self._stop_looking()

        self.looking_until = time.monotonic() + _LOOK_PATIENCE
        argv = ssh_argv(*self._guest(), self.control, _OVER_IT, (render_mount_look(mounts),))
        started = self._start(argv, None, looked, writer)
        os.close(writer)
        if not started:
            looked(0)

    def _stop_looking(self) -> None:
        self.looking_until = None
        if self.state == "up":
            self._tell()

    def _tell(self) -> None:
        if self.looking_until is not None or self.state != "up" or self.taker:
            return
        waiting = self.tasks.keys() - self.told
        self.told |= waiting
        self._send(waiting, UP)

    def _send(self, tasks: Iterable[socket.socket], word: bytes) -> None:
        for task in tasks:
            try:
                task.send(word)
            except OSError:
                pass  # it has ended: its socket will say so

    def _down(self, _status: int) -> None:
        """Note that the shared connection has ended: it is opened again for a task that waits, or for the next one."""
        self.master, self.still = 0, False
        self.state = "down"
        self.retry = time.monotonic() + _RETRY
        self.probe.reset()
        try:
            os.unlink(self.control)
        except OSError:
            pass

    def _sweep(self) -> None:
        tokens, self.left = self.left, []
        script = render_sweep([token.decode() for token in tokens])

        def swept(status: int) -> None:
            self.sweeper = 0
            if status == _LOST:
                self.left = tokens + self.left
                self.sweep_at = time.monotonic() + _SWEEP_DELAY

        self.sweeper = self._start(ssh_argv(*self._guest(), self.control, _OVER_IT, (script,)), None, swept)

    def _start(
        self, argv: list[str], stream: int | None, then: Callable[[int], None], output: int | None = None
    ) -> int:
        """Start an ssh on a stream or with an output; `then` gets its exit status. Returns its pid, 0 if none."""
        null = os.open(os.devnull, os.O_RDWR)
        source, target = (
            null if one is None else one for one in (stream, stream if output is None else output)
        )
        ends = [(os.POSIX_SPAWN_DUP2, source, 0), (os.POSIX_SPAWN_DUP2, target, 1)]
        try:
            pid = os.posix_spawnp(
                argv[0], argv, os.environ, file_actions=[*ends, (os.POSIX_SPAWN_DUP2, null, 2)]
            )
        except OSError:
            return 0
        finally:
            os.close(null)
        pidfd = os.pidfd_open(pid)

        def ended() -> None:
            self.selector.unregister(pidfd)
            os.close(pidfd)
            then(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        self.selector.register(pidfd, selectors.EVENT_READ, ended)
        return pid


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    listener.bind(path)
    listener.listen(64)
    listener.setblocking(False)
    return listener
