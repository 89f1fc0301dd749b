"""The keeper's connection to its guest, with a program in place of ssh that runs everything here."""

import os
import selectors
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime.documents.login import FORMER_KEY_FILE, NEW_KEYS_FILE
from pcocc_runtime.documents.vm import VmFacts
from pcocc_runtime.documents.vm_state import UP
from pcocc_runtime.guest.script import KEYS_TAKEN, KEYS_TAKEN_AS_USER
from pcocc_runtime.keeper import shared_ssh
from pcocc_runtime.keeper.shared_ssh import SharedSsh
from tests.waiting import limit, wait_closely

SSH = """#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in -S) control=$2 ;; -N) master=1 ;; esac
    last=$1
    shift
done
if [ "$master" ]; then : >"$control"; exec sleep 600; fi
exec sh -c "$last"
"""


class Probe:
    """sshd has said its banner."""

    def __init__(self) -> None:
        self.socket = socket.socket()

    def reset(self) -> None:
        pass


class Guest:
    """A connection that is opened, a task that waits for it, and what is told of the guest's mounts."""

    def __init__(self, directory: Path, mounts: dict[str, str]) -> None:
        facts = VmFacts(
            job=7, rank=0, node="n1", pid=1, qmp=0, probe=None, watch=0, address="10.0.0.1", user="alice", timeout=300,
            directory=str(directory),
            accel="tcg", accel_why="", disks={}, cpus=[], emulator=[], grace=0, agent="/a", agent_port="/q", console="/c",
            console_size=0,
            kvm_expected=False, mounts=mounts,
        )  # fmt: skip
        self.told: list[tuple[str, str, bool]] = []
        self.statuses: list[int] = []
        self.selector = selectors.DefaultSelector()
        tell = (lambda *one: self.told.append(one), self.statuses.append)
        self.link = SharedSsh(facts, self.selector, Probe(), *tell)  # type: ignore[arg-type]
        self.task = socket.socket(socket.AF_UNIX)
        self.task.connect(f"{directory}/attach")
        self.task.setblocking(False)
        self.link.open()

    def end(self) -> None:
        """End what runs, and close what is open."""
        self.link.close()
        while any(isinstance(key.fileobj, int) for key in self.selector.get_map().values()):  # pidfds
            for key, _events in self.selector.select():
                key.data()
        for one in (self.task, self.link.listener, self.link.probe.socket, *self.link.tasks):
            one.close()
        self.selector.close()

    def run_until_up(self, task: socket.socket | None = None) -> None:
        """Do as the keeper does until a task, the first or another, is told that it may begin."""
        task = task or self.task
        for _ in range(int(limit(2000))):
            for key, _events in self.selector.select(self.link.patience()):
                key.data()
            self.link.turn()
            try:
                assert task.recv(100) == UP
                return
            except BlockingIOError:
                pass
        raise AssertionError("it is not told")


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Guest]]:
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "vm0").mkdir()
    opened: list[Guest] = []
    yield opened
    for one in opened:
        one.end()


def test_what_is_not_mounted_is_told_before_the_first_task_and_once(ssh: list[Guest], tmp_path: Path) -> None:
    guest = Guest(tmp_path / "vm0", {"proc": "proc", "data": "no-such-type", "fast": "proc"})
    ssh.append(guest)
    guest.run_until_up()
    assert guest.told == [("data", "no-such-type", False), ("fast", "proc", True)]
    guest.link._look_at_mounts()
    assert guest.link.looking_until is None, "it does not look again"


def test_without_mounts_nothing_is_asked(ssh: list[Guest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_ssh, "render_mount_look", None)
    ssh.append(Guest(tmp_path / "vm0", {}))
    ssh[0].run_until_up()


def test_a_guest_that_does_not_say_keeps_no_task_waiting(
    ssh: list[Guest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_ssh, "render_mount_look", lambda _mounts: f"while [ -e {tmp_path}/ssh ]; do sleep 0.1; done")
    monkeypatch.setattr(shared_ssh, "_LOOK_PATIENCE", 0.1)
    ssh.append(Guest(tmp_path / "vm0", {"data": "9p"}))
    ssh[0].run_until_up()
    assert ssh[0].told == []
    (tmp_path / "ssh").unlink()


@pytest.mark.parametrize("ends", [False, True])
def test_the_connection_stands_still_with_its_guest(ssh: list[Guest], tmp_path: Path, ends: bool) -> None:
    def state() -> str:
        return Path(f"/proc/{ssh[0].link.master}/stat").read_text().rpartition(")")[2].split()[0]

    ssh.append(Guest(tmp_path / "vm0", {}))
    ssh[0].run_until_up()
    ssh[0].link.stand_still(True)
    wait_closely(lambda: state() == "T")
    if not ends:  # else the test's end waits for it
        ssh[0].link.stand_still(False)
        wait_closely(lambda: state() != "T")


def put_keys(directory: Path, text: str) -> None:
    (directory / FORMER_KEY_FILE).write_text("old")
    (directory / NEW_KEYS_FILE).write_text(text)


@pytest.mark.parametrize("status", [KEYS_TAKEN, KEYS_TAKEN_AS_USER])
def test_a_guest_that_goes_on_takes_the_keys_before_the_first_task(ssh: list[Guest], tmp_path: Path, status: int) -> None:
    put_keys(tmp_path / "vm0", f"echo $1 >{tmp_path}/taken; exit {status}\n")
    guest = Guest(tmp_path / "vm0", {})
    ssh.append(guest)
    assert guest.link._guest()[2] == f"{tmp_path}/vm0/former-key" and not guest.link.has_begun()
    guest.run_until_up()
    assert time.time() - int((tmp_path / "taken").read_text()) < limit(60), "it is told the time"
    assert guest.link.has_begun() and guest.link._guest()[2] == f"{tmp_path}/key"
    assert not [*tmp_path.glob("vm0/*key*")] and guest.statuses == [status] * (status != KEYS_TAKEN)


def test_a_guest_that_could_not_take_them_is_asked_again_for_the_next_task(ssh: list[Guest], tmp_path: Path) -> None:
    put_keys(tmp_path / "vm0", f"[ -e {tmp_path}/room ]")
    guest = Guest(tmp_path / "vm0", {})
    ssh.append(guest)
    guest.run_until_up()
    assert guest.statuses == [1] and guest.link.has_begun() and guest.link._guest()[2] == f"{tmp_path}/vm0/former-key"
    (tmp_path / "room").touch()
    with socket.socket(socket.AF_UNIX) as another:
        another.connect(f"{tmp_path}/vm0/attach")
        another.setblocking(False)
        guest.run_until_up(another)
    assert guest.statuses == [1] and guest.link._guest()[2] == f"{tmp_path}/key"


def test_a_guest_that_hangs_keeps_no_task_waiting(ssh: list[Guest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_keys(tmp_path / "vm0", "exec sleep 600")
    monkeypatch.setattr(shared_ssh, "_TAKE_PATIENCE", 0.2)
    ssh.append(Guest(tmp_path / "vm0", {}))
    ssh[0].run_until_up()
    assert ssh[0].statuses == [-9] and ssh[0].link.taking == "failed"
