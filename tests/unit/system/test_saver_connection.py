"""A saver's connection, to a keeper that is the test's."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pcocc_runtime.documents.save import Go, Outcome, Reply, encode_answer
from pcocc_runtime.errors import NodeError, PcoccError, RequestError
from pcocc_runtime.qemu.qmp import LONGEST_LINE
from pcocc_runtime.system import saver_connection
from pcocc_runtime.system.saver_connection import SaverConnection
from tests.unit.serving import serving
from tests.waiting import limit

Serve = Callable[..., str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Return a function that starts a keeper, which says one thing at the start and one to each line, and returns its path."""

    def start(*answers: bytes) -> str:
        def talk(saver: socket.socket) -> None:
            with saver.makefile("rb") as lines:
                for answer in answers:
                    saver.sendall(answer)
                    lines.readline()

        return started.enter_context(serving(tmp_path / "save", talk))

    with contextlib.ExitStack() as started:
        yield start


GO = encode_answer(Go())


def test_a_command_has_qemus_answer(serve: Serve) -> None:
    words = (GO, encode_answer(Reply({"return": [1], "id": "save"})), encode_answer(Outcome(None)))
    with SaverConnection(serve(*words), "vm0") as saver:
        assert saver.command("query-block") == [1] and saver.finish(limit(5)) is None


def test_a_refusal_and_a_merge_that_failed_are_told(serve: Serve) -> None:
    words = (
        GO, encode_answer(Reply({"id": "save", "error": {"class": "GenericError", "desc": "no node"}})),
        encode_answer(Outcome("full")),
    )
    with SaverConnection(serve(*words), "vm0") as saver:
        with pytest.raises(NodeError, match="the QEMU of vm0 refuses x: no node"):
            saver.command("x")
        assert saver.finish(limit(5)) == "full"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([GO, b"nonsense\n"], "the answer of vm0's keeper cannot be read: a line that is not JSON"),
        ([GO, b"{}\n"], "the answer of vm0's keeper cannot be read: a line that is not an answer"),
        ([GO, b"x" * (LONGEST_LINE + 1)], "the answer of vm0's keeper cannot be read: a line that is too long"),
        ([GO, GO], "the keeper of vm0 answered x by Go"),
        ([GO], "the keeper of vm0 has ended"),
        ([b"nonsense\n"], "the answer of vm0's keeper cannot be read: a line that is not JSON"),
        ([], "the keeper of vm0 has ended"),
    ],
)
def test_a_keeper_that_says_something_else_ends_the_save_with_a_sentence(serve: Serve, words: list[bytes], said: str) -> None:
    path = serve(*words)
    with pytest.raises(NodeError) as error, SaverConnection(path, "vm0") as saver:
        saver.command("x")
    assert str(error.value).startswith(said)


def test_a_keeper_that_says_nothing_has_another_save(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver_connection, "_TURN_SECONDS", 0.01)
    with pytest.raises(RequestError, match="another save of vm0 is in progress"):
        SaverConnection(serve(b""), "vm0")


def test_where_there_is_no_keeper_the_vm_is_not_up(tmp_path: Path) -> None:
    with pytest.raises(PcoccError, match="vm0 is not up yet"):
        SaverConnection(str(tmp_path / "save"), "vm0")
