"""Says on standard output what root's helper is doing, until it answers: the plugin reads it if it stops waiting."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from pcocc_runtime.errors import one_line

_OUTPUT = "/memfd:pcocc-helper"  # as spank/helper.c makes it; anything else is left alone
_MOST = 500  # bytes


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Say in the block that this process is doing `what`, such as `running nft`; after it, what was said before.

    The planner, a child, has the same output: what it has begun meanwhile stays, as its parent will wait for that.
    """
    ours = one_line(what).encode()[:_MOST]
    before = exchange(ours)
    try:
        yield
    finally:
        if (now := exchange(before)) != ours:
            exchange(now)


def exchange(text: bytes) -> bytes:
    """Say `text` instead; return what was said before."""
    if not os.readlink("/proc/self/fd/1").startswith(_OUTPUT):
        return b""
    before = os.pread(1, _MOST, 0)
    os.pwrite(1, text, 0)  # does not move the position where the answer will be written
    os.ftruncate(1, len(text))
    return before
