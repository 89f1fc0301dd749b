"""What root's helper is at, on its standard output until it answers: the plugin reads it when it gives up waiting."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from pcocc_runtime.errors import one_line

_OUTPUT = "/memfd:pcocc-helper"  # as spank/helper.c makes it; anything else is left alone
_MOST = 500  # bytes


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Say in the block that its process is `what`, such as `running nft`; after it what was said before.

    A planner, a child, has the same output: what it has begun meanwhile stays, for its parent will wait for that.
    """
    ours = one_line(what).encode()[:_MOST]
    before = exchange(ours)
    try:
        yield
    finally:
        if (now := exchange(before)) != ours:
            exchange(now)


def exchange(text: bytes) -> bytes:
    """Say something else; return what was said."""
    if not os.readlink("/proc/self/fd/1").startswith(_OUTPUT):
        return b""
    before = os.pread(1, _MOST, 0)
    os.pwrite(1, text, 0)  # the position stays, from which the answer is written
    os.ftruncate(1, len(text))
    return before
