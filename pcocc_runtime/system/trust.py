"""The check that only root can have written a directory and what is in it."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import PurePath

from pcocc_runtime.errors import ConfigError


def ensure_root_only(directory: str) -> None:
    """Raise ConfigError unless the directory, its parents and all in it are root's to write alone."""
    real = os.path.realpath(directory)
    for parent in map(str, PurePath(real).parents):
        _ensure_root_file(parent, os.stat(parent))
    _ensure_tree(real)


def _ensure_tree(path: str) -> None:
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        raise ConfigError("does not exist", path, hint="install pcocc's configuration on this node") from None
    if stat.S_ISLNK(info.st_mode):
        raise ConfigError("is a symbolic link", path, hint="put the file itself there, so that only root can change it")
    _ensure_root_file(path, info)
    if stat.S_ISDIR(info.st_mode):
        for name in sorted(os.listdir(path)):
            _ensure_tree(f"{path}/{name}")


def _ensure_root_file(path: str, info: os.stat_result) -> None:
    if info.st_uid != 0:
        raise ConfigError(f"belongs to uid {info.st_uid}, not to root", path, hint=f"chown root {path}")
    if info.st_mode & 0o022 and not (stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX):
        raise ConfigError("can be written by others than root", path, hint=f"chmod go-w {path}")


def make_root_only(path: str) -> str:
    """Make a directory and those above it, unless they are there; return its path without links, for lasting use.

    ConfigError unless each is a directory, or a link, that only root can have put there or replace. Others may add
    to a directory above the last one, if it has the sticky bit (chmod(2)).
    """
    here, names = "/", [*reversed(PurePath(path).parts[1:])]
    while names:
        one = os.path.join(here, names.pop())
        with contextlib.suppress(FileExistsError):
            os.mkdir(one, 0o755)
        info = os.lstat(one)
        forbidden = 0 if names and info.st_mode & stat.S_ISVTX else 0o022
        if stat.S_ISLNK(info.st_mode) and info.st_uid == 0:
            os.stat(one)  # OSError for links in a circle
            names += reversed(PurePath(os.readlink(one)).parts)  # join() begins anew at a "/"
        elif not stat.S_ISDIR(info.st_mode) or info.st_uid != 0 or info.st_mode & forbidden:
            wrong = "must be a directory owned by root in which nobody else can create or replace root's files"
            raise ConfigError(wrong, one, hint="make it so, or have another 'scratch' in /etc/pcocc/pcocc.yaml")
        else:
            here = os.path.realpath(one)  # such as a/.., in directories known by now
    return here
