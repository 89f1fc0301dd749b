"""Where a repository's files and directories get their final place."""

from __future__ import annotations

import os
from pathlib import PurePath


def make_like(path: PurePath, model: PurePath) -> None:
    """Create a directory with the same mode as `model`; one that exists is left alone."""
    try:
        make_directory(path, os.stat(model).st_mode & 0o777)
    except FileExistsError:
        pass


def make_directory(path: PurePath, mode: int) -> None:
    """Create a directory with exactly this mode; FileExistsError when something is there."""
    umask = os.umask(0)
    try:
        os.mkdir(path, mode)
    finally:
        os.umask(umask)


def place_file(file: PurePath, path: PurePath, replace: bool) -> None:
    """Give a finished file its final path on the same file system; FileExistsError when it exists, unless `replace`."""
    if not replace:
        try:
            os.link(file, path)
            return
        except FileExistsError:
            raise
        except OSError:  # no hard links here
            if os.path.lexists(path):
                raise FileExistsError(path) from None
    os.rename(file, path)
