"""The keeper stays connected to a guest's agent, and lets in one client at a time."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime.keeper.agent_port import DRAIN_AGAIN, AgentPort
from tests.waiting import limit


class Guest:
    """QEMU's socket, on which the test answers as the agent, and the keeper's side of it."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "agent")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(directory / "agent.qemu"))
        self.listener.listen()
        self.selector = selectors.DefaultSelector()
        self.port = AgentPort(self.path, str(directory / "agent.qemu"), self.selector)
        self.open = [self.listener]

    def connect(self) -> socket.socket:
        """Have the keeper connected; return the agent's side."""
        self.port.connect()
        agent, _address = self.listener.accept()
        self.open.append(agent)
        agent.settimeout(limit(5))
        return agent

    def client(self) -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        self.open.append(one)
        one.settimeout(limit(5))
        one.connect(self.path)
        return one

    def turn(self) -> None:
        """Handle what has come."""
        for _ in range(6):
            for key, _events in self.selector.select(0):
                key.data()
        self.port.tick()


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    found = Guest(tmp_path)
    yield found
    for one in [*found.open, *(key.fileobj for key in list(found.selector.get_map().values()))]:
        one.close()  # type: ignore[union-attr]
    found.port.listener.close()
    found.selector.close()


def test_a_client_talks_to_the_agent_and_the_next_one_waits(guest: Guest) -> None:
    early = guest.client()
    early.sendall(b"ping\n")
    agent = guest.connect()
    guest.turn()
    assert agent.recv(100) == b"ping\n"
    late = guest.client()
    late.sendall(b"again\n")
    agent.sendall(b"pong\n")
    guest.turn()
    assert early.recv(100) == b"pong\n"
    early.close()
    guest.turn()
    assert agent.recv(100) == b"again\n", "and nobody has hung up"
    late.close()
    guest.turn()
    agent.settimeout(0)
    with pytest.raises(BlockingIOError):
        agent.recv(100)


def test_an_answer_to_a_client_that_has_hung_up_is_thrown_away(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = guest.connect()
    client = guest.client()
    client.sendall(b"ask\n")
    guest.turn()
    client.close()
    guest.turn()
    agent.sendall(b"late\n")
    guest.turn()
    assert guest.port.is_waiting()
    agent.sendall(b"more\n")
    guest.turn()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 2 * DRAIN_AGAIN)
    guest.turn()
    guest.turn()
    other = guest.client()
    other.sendall(b"ask\n")
    guest.turn()
    agent.sendall(b"own\n")
    guest.turn()
    assert other.recv(100) == b"own\n" and agent.recv(100) == b"ask\nask\n"


def test_what_one_side_does_not_read_waits_at_the_other(guest: Guest) -> None:
    agent, client = guest.connect(), guest.client()
    guest.turn()
    agent.setblocking(False)
    sent = 0
    for _ in range(200):
        try:
            sent += agent.send(bytes(1 << 16))
        except BlockingIOError:
            pass
        guest.turn()
    assert sent < 8 << 20, "the guest is held up"
    assert sum(map(len, guest.port.waiting.values())) <= 1 << 16
    seen = 0
    while seen < sent:
        seen += len(client.recv(1 << 20))
        guest.turn()
    assert seen == sent and not guest.port.waiting
    client.sendall(b"ask\n")
    guest.turn()
    agent.setblocking(True)
    assert agent.recv(100) == b"ask\n"


def test_without_a_port_clients_hear_so(guest: Guest) -> None:
    agent, client, waits = guest.connect(), guest.client(), guest.client()
    guest.turn()
    agent.close()
    guest.turn()
    assert client.recv(100) == b""
    with pytest.raises(ConnectionResetError):
        waits.recv(100)
    with pytest.raises(ConnectionRefusedError):
        guest.client()
    guest.port.connect()
    assert guest.selector.get_map() == {}


def test_a_qemu_without_a_port_is_no_fault(guest: Guest) -> None:
    guest.listener.close()
    guest.port.connect()
    guest.turn()
    assert not guest.port.is_waiting()
