"""A task's environment before prolog scripts changed it: the plugin has put it into a file in memory."""

from __future__ import annotations

import os

from pcocc_runtime.documents.wire_steps import ENV_BEFORE_FD


def take_environment_before() -> dict[str, str]:
    """Return it, once; without such a file, return today's environment."""
    number = os.environ.pop(ENV_BEFORE_FD, "")
    if not number.isdigit():
        return dict(os.environ)
    with open(int(number), "rb") as stream:
        stream.seek(0)
        words = stream.read().split(b"\0")
    return {
        os.fsdecode(name): os.fsdecode(value)
        for name, _equals, value in (word.partition(b"=") for word in words)
        if name
    }
