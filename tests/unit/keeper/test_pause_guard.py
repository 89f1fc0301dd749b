"""A VM stands still as long as somebody is connected; one that is restarted from a checkpoint goes on when its memory is
there.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pcocc_runtime.documents.save import GOES_ON, PAUSE_SOCKET, STAYS, Pause, decode_pause
from pcocc_runtime.keeper.going_on import GoingOn
from pcocc_runtime.keeper.guest_clock import GuestClock
from pcocc_runtime.keeper.pause_guard import PauseGuard


class Keeper:
    """A guard whose selector the test runs by hand, and a QEMU whose answers the test gives."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.selector = directory, selectors.DefaultSelector()
        self.sent: list[tuple[str, dict[str, Any] | None, str | None]] = []
        self.went_on = 0
        self.guard = PauseGuard(str(directory), self.selector, self.send, self.note)

    def send(self, command: str, arguments: dict[str, Any] | None = None, id: str | None = None) -> None:
        self.sent.append((command, arguments, id))

    def note(self) -> None:
        self.went_on += 1

    def turn(self) -> list[str]:
        """Handle what has arrived; return the commands that QEMU got."""
        for _ in range(3):
            for key, _events in self.selector.select(0):
                key.data()
        self.guard.tick()
        found, self.sent = [command for command, _arguments, _id in self.sent], []
        return found

    def answer(self, identity: str, **answer: Any) -> None:
        self.guard.take({"id": identity, "return": answer})

    def connect(self) -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(5)
        one.connect(str(self.directory / PAUSE_SOCKET))
        return one


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    found = Keeper(tmp_path)
    yield found
    for key in list(found.selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    found.selector.close()


def test_a_vm_stands_still_as_long_as_somebody_is_connected(keeper: Keeper) -> None:
    with keeper.connect() as task:
        assert keeper.turn() == ["query-status"]
        keeper.answer("pause-look", running=True, status="running")
        assert keeper.turn() == ["stop"]
        keeper.answer("pause-stop")
        assert decode_pause(task.recv(100)) == Pause(None)
        assert keeper.turn() == [] and not keeper.guard.is_waiting()
        with keeper.connect() as other:
            keeper.turn()
            assert other.recv(100) == b"", "one at a time"
    assert keeper.turn() == ["migrate_cancel", "cont", "query-status"]
    keeper.answer("pause-status", running=False, status="finish-migrate")
    keeper.guard.again = 0.0  # some time later
    assert keeper.guard.is_waiting() and keeper.turn() == ["migrate_cancel", "cont", "query-status"]
    assert keeper.went_on == 0
    keeper.answer("pause-status", running=True, status="running")
    assert keeper.turn() == [] and not keeper.guard.is_waiting() and keeper.went_on == 1
    with keeper.connect():
        assert keeper.turn() == ["query-status"], "again"


@pytest.mark.parametrize("how", ["ends", "goes on", "is let go"])
def test_a_stored_vm_stays_until_it_is_told_to_go_on(keeper: Keeper, how: str) -> None:
    with keeper.connect() as task:
        keeper.turn()
        keeper.answer("pause-look", running=True, status="running")
        keeper.turn()
        keeper.answer("pause-stop")
        assert keeper.guard.is_held()
        if how != "is let go":
            task.sendall(STAYS)
            assert keeper.turn() == []
        if how == "goes on":
            task.sendall(GOES_ON)
    goes = ["migrate_cancel", "cont", "query-status"]
    assert keeper.turn() == (["quit"] if how == "ends" else goes)
    assert keeper.guard.is_held() == (how != "ends")


def test_a_task_that_dies_while_qemu_is_asked_changes_nothing(keeper: Keeper) -> None:
    keeper.connect().close()
    keeper.turn()
    keeper.answer("pause-look", running=True, status="running")
    assert keeper.turn() == [] and not keeper.guard.is_waiting()


def test_a_task_that_dies_while_qemu_stops_has_it_go_on(keeper: Keeper) -> None:
    with keeper.connect():
        keeper.turn()
        keeper.answer("pause-look", running=True, status="running")
    assert keeper.turn() == ["stop", "migrate_cancel", "cont", "query-status"]


def test_a_vm_that_does_not_run_is_left_as_it_is(keeper: Keeper) -> None:
    with keeper.connect() as task:
        keeper.turn()
        keeper.answer("pause-look", running=False, status="io-error")
        assert decode_pause(task.recv(100)) == Pause("io-error") and task.recv(100) == b""
    assert keeper.turn() == [] and not keeper.guard.is_waiting()


def test_a_stored_vm_goes_on_once_when_its_memory_is_there() -> None:
    sent: list[tuple[str, dict[str, Any] | None, str | None]] = []
    went: list[str] = []
    one = GoingOn("fd:9", lambda *words: sent.append(words), lambda: went.append("on"))
    one.begin()
    assert [command for command, *_rest in sent] == ["migrate-set-capabilities", "migrate-incoming"]
    assert sent[1][1] == {"uri": "fd:9"}
    one.take({"event": "MIGRATION", "data": {"status": "active"}})
    assert len(sent) == 2
    one.take({"event": "MIGRATION", "data": {"status": "completed"}})
    assert sent[2][0] == "cont" and went == []
    one.take({"id": "going-on-cont", "return": {}})
    assert went == ["on"]
    one.take({"event": "MIGRATION", "data": {"status": "completed"}})
    assert len(sent) == 3, "that was a checkpoint of its own, whose VM goes on when it may"


def test_a_qemu_that_refuses_the_memory_ends() -> None:
    sent: list[str] = []
    one = GoingOn("file:/dev/fdset/2", lambda command, *_rest: sent.append(command), lambda: None)
    one.begin()
    one.take({"id": "going-on-begin", "error": {"desc": "no"}})
    assert sent[-1] == "quit"


def test_the_clock_of_a_guest_with_an_agent_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 12345)
    with selectors.DefaultSelector() as selector, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent"))
        listener.listen(1)
        sent: list[str] = []
        clock = GuestClock(str(tmp_path / "agent"), selector, lambda command, *_rest: sent.append(command))
        clock.set()
        assert sent == ["query-chardev"]
        clock.take({"id": "clock-look", "return": [{"label": "agent", "frontend-open": False}, {"label": "qmp"}]})
        assert not clock.is_waiting(), "what is said would wait for an agent that starts later"
        clock.take({"id": "clock-look", "return": [{"label": "agent", "frontend-open": True}]})
        agent, _address = listener.accept()
        with agent:
            agent.settimeout(5)
            assert agent.recv(4096).endswith(b'{"execute": "guest-set-time", "arguments": {"time": 12345}}\n')
            clock.tick()
            assert clock.is_waiting()
            monkeypatch.setattr("pcocc_runtime.keeper.guest_clock.time.monotonic", lambda: clock.until + 1)
            clock.tick()
            assert not clock.is_waiting() and agent.recv(4096) == b"", "an agent that is silent is hung up on"
