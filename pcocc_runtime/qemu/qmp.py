"""Lines of JSON, as QEMU's monitor, a guest's agent and keepers speak them: bytes in, messages out, without any I/O.

Of QEMU: docs/interop/qmp-spec and qemu-ga-ref.
"""

from __future__ import annotations

import json

from pcocc_runtime.documents.record import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Message = dict[str, Any]

LONGEST_LINE = 1 << 20  # bytes of a line; QEMU takes some 1,500 to describe a disk, and as many for each layer below
RESET = b"\xff"  # makes an agent forget an unfinished command; begins its answer to guest-sync-delimited


class Unreadable(ValueError):
    """A line that is not a message; the text says what it is."""


class TooLong(Unreadable):
    """A line that was too long to be kept."""


class Lines:
    """Cuts what arrives in pieces into lines; a line longer than `longest` bytes is dropped."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self.longest = longest
        self._rest = b""
        self._skips = False  # the present line is too long, which `feed` has reported

    def feed(self, data: bytes) -> list[bytes | None]:
        """Return the lines that end in `data`, without line ends, and None for each that has become too long."""
        *ended, self._rest = (self._rest + data).split(b"\n")
        found: list[bytes | None] = []
        for line in ended:
            if not self._skips:
                found.append(line if len(line) <= self.longest else None)
            self._skips = False
        if len(self._rest) > self.longest and not self._skips:
            found.append(None)
            self._skips = True
        if self._skips:
            self._rest = b""
        return found

    def take_rest(self) -> bytes:
        """Return the line that has not ended yet, once."""
        rest, self._rest = self._rest, b""
        return rest


class Messages:
    """Cuts what arrives in pieces into messages: lines of JSON, each a mapping."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._lines = Lines(longest)

    def feed(self, data: bytes) -> list[Message | Unreadable]:
        """Return the messages of the lines that end in `data`, in their order."""
        return [parse_message(line) for line in self._lines.feed(data)]


def parse_message(line: bytes | None) -> Message | Unreadable:
    """Return the message in a line; None is a line that was too long."""
    if line is None:
        return TooLong("a line that is too long")
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return Unreadable("a line that is not JSON")
    return message if isinstance(message, dict) else Unreadable("a line that is not a mapping")


def render_command(name: str, arguments: Mapping[str, Any] | None = None, id: str | None = None) -> bytes:
    """Return the line of a command; its answer carries the same `id`."""
    words: Message = {"execute": name}
    if id is not None:
        words["id"] = id
    if arguments is not None:
        words["arguments"] = dict(arguments)
    return json.dumps(words).encode() + b"\n"
