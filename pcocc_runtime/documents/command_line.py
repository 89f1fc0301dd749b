"""QEMU's command line, which a VM's launcher leaves in the VM's directory: a checkpoint compares it later."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pcocc_runtime.errors import NodeError

COMMAND_FILE = "qemu.json"
MAX_COMMAND = 1 << 24  # bytes


def encode_command_line(argv: Sequence[str]) -> bytes:
    """Return the content of the file: a list of words."""
    return json.dumps(list(argv)).encode()


def decode_command_line(data: bytes | None, vm: str) -> list[str]:
    """Return the words in the file's content; NodeError when it is missing or is no list of words."""
    try:
        words = json.loads(data or b"")
    except (ValueError, RecursionError):
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        text = f"QEMU's command line of {vm} is not known: {COMMAND_FILE} in its directory is missing or damaged"
        raise NodeError(text, "start a new job")
    return words
