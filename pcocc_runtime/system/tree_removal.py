"""A directory with all in it, deleted."""

from __future__ import annotations

import contextlib
import os
from pathlib import PurePath

from pcocc_runtime.system.trees import DIRECTORY, empty


def remove_tree(path: PurePath) -> None:
    """Delete a directory and all in it; a link is deleted, never followed. OSError when something cannot be deleted."""
    try:
        top = os.open(path, DIRECTORY)
    except FileNotFoundError:
        return
    except OSError:
        if not os.path.islink(path):
            raise
        os.unlink(path)
        return
    try:
        empty(top)
    finally:
        os.close(top)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)
