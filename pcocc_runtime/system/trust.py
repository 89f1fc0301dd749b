"""The check that only root can have written a directory and what is in it."""

from __future__ import annotations

import os
import stat

from pcocc_runtime.errors import ConfigError


def ensure_root_only(directory: str) -> None:
    """Raise ConfigError unless the directory, its parents and all in it are root's to write alone."""
    real = os.path.realpath(directory)
    parent = real
    while parent != "/":
        parent = os.path.dirname(parent)
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
