"""The keeper's part in a save, with sockets in place of a saver and of QEMU's for the guest's agent."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pcocc_runtime.documents.save import SAVE_SOCKET, Frozen, encode_request
from pcocc_runtime.keeper.save_guard import SaveGuard

ASKED = 1 << 32  # and one more for each question


def words(number: int = 1) -> bytes:
    """Return a question."""
    first = b'\xff{"execute": "guest-sync-delimited", "arguments": {"id": %d}}\n' % (ASKED + number)
    return first + b'{"execute": "guest-fsfreeze-thaw"}\n'


def answers(number: int = 1) -> bytes:
    """Return what comes then, after answers that a saver did not wait for and a complaint about the question's first byte."""
    complaint = b'{"error": {"class": "GenericError", "desc": "JSON parse error, stray"}}\n'
    return b'{"return": 3}\n\xff{"return": 1}\n' + complaint + b'\xff{"return": %d}\n{"return": 3}\n' % (ASKED + number)



class Keeper:
    """A guard whose selector the test runs by hand; QEMU accepts every command."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.selector = directory, selectors.DefaultSelector()
        self.guard = SaveGuard(str(directory), str(directory / "agent"), self.selector, self.send)

    def send(self, command: str, arguments: dict[str, Any] | None = None, id: str | None = None) -> None:
        pass

    def turn(self) -> None:
        for _ in range(5):
            for key, _events in self.selector.select(0):
                key.data()
        self.guard.tick()

    def freeze_and_die(self) -> None:
        """Act as a saver that is killed while the guest is frozen."""
        with socket.socket(socket.AF_UNIX) as saver:
            saver.connect(str(self.directory / SAVE_SOCKET))
            self.turn()
            saver.sendall(encode_request(Frozen(True)))
            self.turn()
        self.turn()
        self.guard.take({"id": "save-remove", "return": {}})


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    made = Keeper(tmp_path)
    yield made
    for key in list(made.selector.get_map().values()):
        made.selector.unregister(key.fileobj)
        key.fileobj.close()  # type: ignore[union-attr]
    made.selector.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[socket.socket]:
    """QEMU's socket: one is let in at a time, and two may wait."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent"))
        listener.listen(1)
        listener.settimeout(10)
        yield listener


def test_a_guest_is_asked_to_thaw_until_it_has_answered(keeper: Keeper, agent: socket.socket) -> None:
    keeper.freeze_and_die()
    with agent.accept()[0] as asked:
        assert asked.recv(4096) == words()
        for end in range(1, len(answers())):
            asked.send(answers()[end - 1 : end])
            keeper.turn()
            assert keeper.guard.thaw.step in ("asking", "hearing")
        asked.send(answers()[-1:])
        keeper.turn()
        assert keeper.guard.thaw.step == "idle" and not keeper.guard.is_waiting() and asked.recv(1) == b""


def test_a_second_saver_killed_before_the_first_ones_thaw_is_answered(keeper: Keeper, agent: socket.socket) -> None:
    keeper.freeze_and_die()
    with agent.accept()[0] as first:
        keeper.freeze_and_die()
        assert first.recv(4096) == words() and first.recv(1) == b"", "it makes room for the one that comes next"
    with agent.accept()[0] as second:
        assert second.recv(4096) == words(2)
        second.send(answers())
        keeper.turn()
        assert keeper.guard.thaw.step == "asking", "these were for the one before"
        second.send(answers(2))
        keeper.turn()
        assert keeper.guard.thaw.step == "idle" and not keeper.guard.is_waiting()


def test_who_is_not_let_in_asks_again(keeper: Keeper, agent: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcocc_runtime.keeper.agent_call.CALL_AGAIN", -1)
    others = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for other in others:
        other.connect(str(keeper.directory / "agent"))
    keeper.freeze_and_die()
    assert keeper.guard.thaw.step == "waiting" and keeper.guard.is_waiting()
    for other in others:
        agent.accept()[0].close()
        other.close()
    keeper.turn()
    with agent.accept()[0] as asked:
        assert asked.recv(4096) == words() and not keeper.guard.is_waiting()
    keeper.turn()
    with agent.accept()[0] as again:  # the other has hung up without an answer
        assert again.recv(4096) == words(2)
