"""The keeper's part in a save, step by step, with a socket in place of a saver and lists in place of QEMU."""

from __future__ import annotations

import json
import selectors
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pcocc_runtime.documents.save import (
    LONGEST_REQUEST,
    SAVE_OVERLAY,
    DeviceNode,
    Frozen,
    QemuCommand,
    encode_request,
)
from pcocc_runtime.keeper.transaction import Transaction
from tests.waiting import limit

FROZEN = encode_request(Frozen(True))


class Save:
    """A transaction whose saver, QEMU and guest are the test's."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.asked: list[tuple[str, Any, str | None]] = []
        self.thawed = self.over = 0
        self.saver, theirs = socket.socketpair()
        self.saver.settimeout(limit(10))
        self.heard = self.saver.makefile("rb")
        self.held = False
        self.transaction = Transaction(theirs, self.selector, self.ask, self.thaw, self.end, lambda: self.held)
        assert self.hear() == {"go": True}

    def ask(self, command: str, arguments: dict[str, Any] | None, id: str | None) -> None:
        self.asked.append((command, arguments, id))

    def thaw(self) -> None:
        self.thawed += 1

    def end(self) -> None:
        self.over += 1

    def say(self, data: bytes) -> None:
        """Say something as the saver, and have it heard."""
        self.saver.sendall(data)
        self.turn()

    def leave(self) -> None:
        """Act as a saver that has said its last word."""
        self.saver.shutdown(socket.SHUT_WR)
        self.turn()

    def turn(self) -> None:
        while ready := self.selector.select(0):
            for key, _events in ready:
                key.data()

    def hear(self) -> Any:
        """Return what the keeper says to the saver."""
        return json.loads(self.heard.readline())

    def commands(self) -> list[str]:
        """Return what QEMU was asked since the last look."""
        names = [name for name, _arguments, _id in self.asked]
        self.asked.clear()
        return names


@pytest.fixture
def save() -> Iterator[Save]:
    made = Save()
    yield made
    made.transaction.saver.close()
    made.heard.close()
    made.saver.close()
    made.selector.close()


def test_a_savers_commands_are_qemus_and_their_answers_come_back(save: Save) -> None:
    save.say(encode_request(QemuCommand("query-block")))
    assert save.asked == [("query-block", {}, "save")]
    reply = {"return": [], "id": "save"}
    save.transaction.take(reply)
    assert save.hear() == reply and save.transaction.step == "open"


def test_what_is_no_command_is_said_to_be_none_and_the_next_one_counts(save: Save) -> None:
    save.say(b'nonsense\n\n{"execute": "blockdev-snapshot", "arguments": {}}\n{"drive": ["d"]}\n{"execute": "stop"}\n')
    assert [save.hear() for _ in range(4)] == [{"error": {"desc": "not a command"}}] * 4
    assert save.asked == [("stop", {}, "save")]


def test_a_save_that_changed_nothing_is_over_when_its_layer_is_gone(save: Save, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.touch()
    save.say(json.dumps({"layer": str(layer)}).encode() + b"\n")
    save.leave()
    assert not layer.exists() and save.transaction.step == "removing" and save.commands() == ["blockdev-del"]
    save.transaction.take({"id": "save-remove", "error": {"desc": "in use, says somebody else"}})
    assert save.hear() == {"merged": True} and save.transaction.step == "over" and save.over == 1 and save.thawed == 0


def snapshot(save: Save) -> None:
    save.say(encode_request(QemuCommand("blockdev-snapshot", {"node": "base0", "overlay": SAVE_OVERLAY})))
    save.commands()


def test_a_second_layer_is_merged_and_removed(save: Save) -> None:
    snapshot(save)
    save.leave()
    arguments = {"job-id": "save-merge", "device": "save-overlay", "base-node": "base0"}
    assert save.transaction.step == "merging" and save.asked == [("block-commit", arguments, "save-merge")]
    save.commands()
    for message in (
        {"id": "save-merge", "return": {}}, {"event": "BLOCK_JOB_COMPLETED", "data": {"device": "another"}},
        {"event": "STOP"},
    ):
        save.transaction.take(message)  # type: ignore[arg-type]
    assert save.commands() == [] and save.transaction.step == "merging"
    save.transaction.take({"event": "BLOCK_JOB_READY", "data": {"device": "save-merge"}})
    assert save.commands() == ["job-complete"]
    save.transaction.take({"event": "BLOCK_JOB_COMPLETED", "data": {"device": "save-merge"}})
    assert save.transaction.step == "removing" and save.commands() == ["blockdev-del"]
    save.transaction.take({"id": "save-remove", "return": {}})
    assert save.hear() == {"merged": True} and save.over == 1


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"event": "BLOCK_JOB_COMPLETED", "data": {"device": "save-merge", "error": "No space left"}}, "No space left"),
        ({"event": "BLOCK_JOB_CANCELLED", "data": {"device": "save-merge"}}, "it was cancelled"),
    ],
)
def test_a_merge_that_fails_is_told_once_and_tried_again(save: Save, message: dict[str, Any], said: str) -> None:
    snapshot(save)
    save.leave()
    save.commands()
    save.transaction.tick()
    save.transaction.take(message)
    assert save.hear() == {"merged": False, "error": said} and save.heard.readline() == b"", "the saver need not wait"
    save.transaction.tick()
    assert save.transaction.step == "waiting" and save.commands() == []
    save.transaction.take(message)  # comes too late, and changes nothing
    save.transaction.again = 0.0
    save.transaction.tick()
    assert save.transaction.step == "merging" and save.commands() == ["block-commit"] and save.over == 0
    save.transaction.take({"id": "save-merge", "error": {"desc": "there is no such node"}})
    save.transaction.take({"id": "save-remove", "error": {"desc": "Node 'save-overlay' is in use"}})
    assert save.transaction.step == "waiting" and save.over == 0


@pytest.mark.parametrize("filtered", [True, False])
def test_a_drive_is_given_back_to_its_device_unless_it_has_it(save: Save, filtered: bool) -> None:
    save.say(encode_request(DeviceNode("/machine/disk1", "disk1")))
    save.leave()
    assert save.transaction.step == "looking" and save.commands() == ["nbd-server-stop", "blockdev-del", "query-block"]
    inserted = {"inserted": {"node-name": "save-filter"}} if filtered else {}
    save.transaction.take({"id": "save-look", "return": [{"device": "disk0"}, {"device": "disk1", **inserted}]})
    given = [("qom-set", {"path": "/machine/disk1", "property": "drive", "value": "disk1"}, "save-detach")]
    assert save.asked[:-2] == (given if filtered else []) and save.transaction.step == "removing"


@pytest.mark.parametrize(
    ("words", "thaws"), [(FROZEN, 1), (FROZEN + encode_request(Frozen(False)), 0), (b"", 0)]
)
def test_a_guest_is_thawed_that_its_saver_has_left_frozen(save: Save, words: bytes, thaws: int) -> None:
    save.say(words)
    assert save.transaction.step == ("frozen" if thaws else "open")
    save.leave()
    assert save.thawed == thaws


def test_a_saver_that_says_too_much_at_once_is_a_saver_that_has_ended(save: Save) -> None:
    snapshot(save)
    for _ in range(5):
        save.say(b"x" * (LONGEST_REQUEST // 4))
    assert save.transaction.step == "merging"
    save.say(b'\n{"execute": "stop"}\n')
    assert save.commands() == ["block-commit"], "nobody listens to it any more"


def test_a_saver_that_is_gone_is_no_reason_to_fail(save: Save) -> None:
    snapshot(save)
    save.heard.close()
    save.saver.close()
    save.turn()
    save.transaction.take({"id": "save", "return": {}})
    save.transaction.take({"event": "BLOCK_JOB_COMPLETED", "data": {"device": "save-merge"}})
    save.transaction.take({"id": "save-remove", "return": {}})
    assert save.over == 1


def test_nothing_is_merged_while_the_vm_is_held_still(save: Save) -> None:
    snapshot(save)
    save.held = True
    save.leave()
    save.transaction.tick()
    assert save.transaction.step == "waiting" and save.commands() == []
    save.held = False
    save.transaction.tick()
    assert save.transaction.step == "merging" and save.commands() == ["block-commit"]
