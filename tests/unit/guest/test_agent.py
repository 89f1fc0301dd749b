"""A guest's agent, which a guest can make say anything."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pcocc_runtime.errors import NodeError
from pcocc_runtime.guest import agent
from pcocc_runtime.guest.agent import Agent
from pcocc_runtime.qemu.qmp import LONGEST_LINE
from tests.unit.serving import serving

Answer = Callable[[dict[str, object]], bytes]
Serve = Callable[[Answer], str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Return a function that starts an agent for one client, which answers each line as it is told, and returns its path."""

    def start(answer: Answer) -> str:
        def talk(client: socket.socket) -> None:
            with client.makefile("rb") as lines:
                for line in lines:
                    client.sendall(answer(json.loads(line.removeprefix(b"\xff"))))

        return started.enter_context(serving(tmp_path / "agent", talk))

    with contextlib.ExitStack() as started:
        yield start


def synchronised(others: bytes) -> Answer:
    """Return an agent that answers the first command as it should, after something else, and others as told."""

    def answer(command: dict[str, object]) -> bytes:
        arguments = command.get("arguments")
        number = arguments["id"] if isinstance(arguments, dict) else None
        return others if number is None else b'{"return": 7}\nnonsense\n3\n\xff' + json.dumps({"return": number}).encode() + b"\n"

    return answer


def test_file_systems_are_frozen_and_thawed(serve: Serve) -> None:
    with Agent(serve(synchronised(b'{"return": 2}\n'))) as guest:
        assert (guest.freeze(), guest.thaw()) == (2, 2)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b'{"error": {"class": "GenericError", "desc": "not now"}}\n', "the guest's agent refuses: not now"),
        (b"nonsense\n", "the guest's agent refuses: a line that is not JSON"),
        (b"[" * 100_000 + b"\n", "the guest's agent refuses: a line that is not JSON"),
        (b"3\n", "the guest's agent refuses: a line that is not a mapping"),
        (b'{"return": "2"}\n', "the guest's agent refuses: {'return': '2'}"),
        (b"x" * (LONGEST_LINE + 1), f"the guest's agent does not answer: it sent a line of more than {LONGEST_LINE} bytes"),
    ],
)
def test_what_an_agent_says_else_is_one_sentence(serve: Serve, answer: bytes, said: str) -> None:
    with Agent(serve(synchronised(answer))) as guest:
        with pytest.raises(NodeError) as error:
            guest.freeze()
        assert str(error.value) == said


def test_a_line_that_was_too_long_does_not_keep_a_guest_frozen(serve: Serve) -> None:
    answers = iter([b"x" * (LONGEST_LINE + 1), b'{"return": 1}\n'])

    def answer(command: dict[str, object]) -> bytes:
        return b"\n" + synchronised(b"")(command) if "arguments" in command else next(answers)

    with Agent(serve(answer)) as guest:
        with pytest.raises(NodeError, match="a line of more than"):
            guest.freeze()
        assert guest.thaw() == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [(b'{"return": 0}\n' * 100, "it answers something else"), (b"x" * 100, "it sent a line without an end")],
)
def test_an_agent_that_talks_on_and_on_is_not_listened_to_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, said: str
) -> None:
    monkeypatch.setattr(agent, "AGENT_SECONDS", 0.05)

    def talk(client: socket.socket) -> None:
        while True:
            client.sendall(answer)

    with serving(tmp_path / "agent", talk) as path, pytest.raises(NodeError, match=said):
        Agent(path)
