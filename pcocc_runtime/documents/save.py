"""The messages between a saver and the VM's keeper while a disk is saved, and the names that both use.

Each says lines of JSON (qemu/qmp.py). See keeper/save_guard.py for who says what, and when.
"""

from __future__ import annotations

import json

from pcocc_runtime.documents.record import TYPE_CHECKING, Record, parse_record
from pcocc_runtime.qemu.qmp import Unreadable, render_command

if TYPE_CHECKING:
    from pcocc_runtime.qemu.qmp import Message

SAVE_SOCKET, EXPORT_SOCKET = "save", "save.nbd"
PAUSE_SOCKET = "pause"  # keeper/pause_guard.py: whoever is connected has the VM stand still
STAYS, GOES_ON = b"stays\n", b"goes on\n"  # what it may say there of a VM that is stored
SAVE_OVERLAY, MERGE_JOB = "save-overlay", "save-merge"
# between a drive and its guest, and what the drive was (save/drive.py)
SAVE_FILTER, SAVE_VIEW = "save-filter", "save-view"
MERGE_AGAIN = 10.0  # seconds until what failed, such as a merge on a full disk, is tried anew
LONGEST_REQUEST = 1 << 16  # bytes


class QemuCommand(Record):
    """Saver: have QEMU do this; answered by a Reply. The `arguments` are QEMU's own JSON, which it alone reads."""

    execute: str
    arguments: Message = {}


class Frozen(Record):
    """Saver: the guest's file systems are about to be frozen and must be thawed if this process ends; or are thawed."""

    frozen: bool


class ScratchFile(Record):
    """Saver: remove this file when the save is over."""

    layer: str


class DeviceNode(Record):
    """Saver: when the save is over, this device of QEMU must use this block node directly."""

    device: str
    node: str


class Go(Record):
    """Keeper: begin."""


class Reply(Record):
    """Keeper: QEMU's answer to a command, in its own JSON, or why the command was not passed on."""

    message: Message

    @property
    def error(self) -> str | None:
        """Return why the command failed, None when it has not."""
        error = self.message.get("error")
        return None if error is None else str(error.get("desc") if isinstance(error, dict) else error)


class Outcome(Record):
    """Keeper, after the saver's last message: everything is put back, or why not yet."""

    error: str | None


class Pause(Record):
    """Keeper, to the task that makes a checkpoint: the VM stands still; or QEMU's `state`, for which it cannot."""

    state: str | None


if TYPE_CHECKING:
    SaverRequest = QemuCommand | Frozen | ScratchFile | DeviceNode
    KeeperAnswer = Go | Reply | Outcome

NOT_A_COMMAND = Reply({"error": {"desc": "not a command"}})


def encode_request(request: SaverRequest) -> bytes:
    """Return a saver's message as a line."""
    match request:
        case QemuCommand():
            return render_command(request.execute, request.arguments)
        case DeviceNode():
            return _line({"drive": list(request)})
        case _:
            return _line(request._asdict())


def decode_request(message: Message | Unreadable) -> SaverRequest:
    """Return a saver's message; ValueError when the line is none."""
    if isinstance(message, Unreadable):
        raise message
    if "frozen" in message:
        return parse_record(Frozen, message)
    if "layer" in message:
        return parse_record(ScratchFile, message)
    if "drive" in message:
        if not isinstance(message["drive"], list):
            raise ValueError("drive is not a list")
        return parse_record(DeviceNode, dict(zip(("device", "node"), message["drive"], strict=True)))
    return parse_record(QemuCommand, message)


def encode_answer(answer: KeeperAnswer) -> bytes:
    """Return a keeper's message as a line."""
    match answer:
        case Go():
            return _line({"go": True})
        case Reply():
            return _line(answer.message)
        case Outcome():
            return _line(
                {"merged": True} if answer.error is None else {"merged": False, "error": answer.error}
            )


def decode_answer(message: Message | Unreadable) -> KeeperAnswer:
    """Return a keeper's message; ValueError when the line is none."""
    if isinstance(message, Unreadable):
        raise message
    if "go" in message:
        return Go()
    if "merged" in message:
        return Outcome(None if message["merged"] else str(message.get("error")))
    if "return" in message or "error" in message:
        return Reply(message)
    raise ValueError("a line that is not an answer")


def encode_pause(pause: Pause) -> bytes:
    """Return a keeper's message as a line."""
    return _line({"paused": True} if pause.state is None else {"error": pause.state})


def decode_pause(line: bytes) -> Pause:
    """Return a keeper's message; ValueError when the line is none."""
    words = json.loads(line)
    if not isinstance(words, dict) or not {"paused", "error"} & {*words}:
        raise ValueError("a line that is not an answer")
    return Pause(str(words["error"]) if "error" in words else None)


def _line(words: Message) -> bytes:
    return json.dumps(words).encode() + b"\n"
