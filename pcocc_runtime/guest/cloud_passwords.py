"""Whose passwords a cloud-config lets expire: as theirs no command runs any more, whatever key they log in with.

This does what cloud-init's module of passwords does, as far as it matters here (config/cc_set_passwords.py of 22.4
to 26.2). sshd makes whoever has an expired password choose a new one, and without a terminal ends (do_pwchange in
its session.c).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pcocc_runtime.guest.user_data_fault import Fault

_TRUE = ("true", "1", "on", "yes")  # util.translate_bool


def find_expired(tree: Mapping[Any, Any], target: str, default: Any) -> Fault | None:
    """Return why no command would run as the user `target`; `default` is the user whose password `password` sets."""
    chosen = tree.get("chpasswd", {})
    if not isinstance(chosen, Mapping) or not _is_true(chosen.get("expire", True)):
        return None  # on anything but a mapping the module fails, and sets no password
    try:
        named = [*_named(chosen.get("users")), *_listed(chosen.get("list"))]
    except ValueError:
        return None  # it fails
    key = "chpasswd" if named else "password"
    if not named and tree.get("password"):
        named = [default]
    if target not in named:
        return None
    message = (
        f"lets the password of {target!r}, the user that commands run as in the VM, expire at once: sshd would run"
        " no command before it is changed"
    )
    return Fault(message, "add: chpasswd: {expire: false}" if key == "password" else "add to it: expire: false", (key,))


def _is_true(value: object) -> bool:
    return bool(value) and (value is True or str(value).lower().strip() in _TRUE)


def _named(users: object) -> Iterator[object]:
    """Yield the users of a list of mappings; ValueError when the module would fail on it."""
    for one in users if isinstance(users, list) else []:
        if not isinstance(one, Mapping) or "name" not in one:
            raise ValueError(one)
        if one.get("type", "hash") in ("hash", "text", "RANDOM"):
            yield one["name"]


def _listed(lines: object) -> Iterator[str]:
    """Yield the users of lines NAME:PASSWORD; ValueError when the module would fail on one."""
    for line in lines if isinstance(lines, list) else str(lines or "").splitlines():
        name, colon, _password = str(line).partition(":")
        if not colon:
            raise ValueError(line)
        yield name
