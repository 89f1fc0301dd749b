"""Configuration directories: where they are, what is in their files, and whether only root wrote them."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from pcocc_runtime.errors import ConfigError
from pcocc_runtime.settings.checks import Problems
from pcocc_runtime.settings.tree import Node, parse_yaml

SITE_DIR = "/etc/pcocc"


def site_dir(environ: Mapping[str, str], uid: int) -> str:
    """Return the site's directory for a command run by `uid`; root ignores the environment's."""
    named = environ.get("PCOCC_SYSTEM_CONF_DIR") if uid else None
    return ensure_named_directory(named, "PCOCC_SYSTEM_CONF_DIR") if named else SITE_DIR


def user_dir(environ: Mapping[str, str]) -> str | None:
    """Return the directory of the user's own configuration."""
    named, home = environ.get("PCOCC_USER_CONF_DIR"), environ.get("HOME")
    if named:
        return ensure_named_directory(named, "PCOCC_USER_CONF_DIR")
    return f"{home}/.pcocc" if home else None


def read_tree(path: str, problems: Problems) -> Node:
    """Return the tree of a YAML file, an empty one when there is no file or it is wrong."""
    try:
        text = read_file(path)
        return parse_yaml(text or "", path, problems)
    except ConfigError as error:
        problems.append(error)
        return Node({}, path, 1, "")


def list_drop_ins(directory: str, problems: Problems) -> list[str]:
    """Return the YAML files of a directory in order of name; one that cannot be read is a problem."""
    try:
        return list_yaml(directory)
    except ConfigError as error:
        problems.append(error)
        return []


MAX_FILE = 4 * 1024 * 1024


def read_file(path: str) -> str | None:
    """Return the text of a file, None if there is none; ConfigError if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        _refuse_dangling(path)
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ConfigError("is not a regular file", path)
        data = _read_all(fd)
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(fd)
    return _decode(data, path)


def _read_all(fd: int) -> bytes:
    data = b""
    while len(data) <= MAX_FILE and (more := os.read(fd, 1 << 16)):
        data += more
    return data


def _decode(data: bytes, path: str) -> str:
    if len(data) > MAX_FILE:
        raise ConfigError(f"is larger than {MAX_FILE >> 20} MiB", path)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError("is not UTF-8 text", path, line) from error


def list_yaml(directory: str) -> list[str]:
    """Return the paths of a directory's *.yaml files in order of name; none if there is no such directory."""
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        _refuse_dangling(directory)
        if os.path.lexists(directory):
            raise ConfigError("is not a directory", directory) from None
        return []
    except OSError as error:
        raise _unreadable(directory, error) from error
    return [f"{directory}/{name}" for name in names if name.endswith(".yaml") and not name.startswith(".")]


def find_misnamed(directory: str) -> list[str]:
    """Return a sentence for each file of a configuration directory that is not read: a .yml, .YAML and the like."""
    told = []
    for place in (directory, f"{directory}/templates.d"):
        try:
            names = sorted(os.listdir(place))
        except OSError:  # whoever reads the files there reports it
            continue
        told += [
            f"{place}/{name} is not read: name it {name.rpartition('.')[0]}.yaml"
            for name in names
            if name.lower().endswith((".yml", ".yaml")) and not name.endswith(".yaml")
        ]
    return told


def _refuse_dangling(path: str) -> None:
    if os.path.islink(path):
        raise ConfigError("is a link to something that does not exist", path, hint=f"see: ls -l {path}")


def ensure_named_directory(path: str, variable: str) -> str:
    """Return the path that an environment variable names; ConfigError when it is not a directory."""
    if not os.path.isdir(path):
        raise ConfigError("is not a directory", path, hint=f"the environment variable {variable} names it")
    return path


def _unreadable(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"cannot be read: {error.strerror}", path)
