"""The host's databases of users and groups (nsswitch.conf(5))."""

from __future__ import annotations

import grp
import os
import pwd

from pcocc_runtime.documents.boot_step import Person
from pcocc_runtime.errors import NodeError


def user_name() -> str:
    """Return the caller's name, the uid when it has no account here."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def read_person(uid: int, gid: int) -> Person:
    """Return a user's name and the names of all groups: the account's own, those it is listed in, and `gid`."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Person(uid, None)
    numbers = {gid, *os.getgrouplist(entry.pw_name, entry.pw_gid)}
    return Person(
        uid, entry.pw_name, frozenset(name for number in numbers if (name := _group_name(number)) is not None)
    )


def read_person_here() -> Person:
    """Return who runs this process."""
    return read_person(os.getuid(), os.getgid())


def read_home() -> tuple[str, str | None]:
    """Return name and home directory of this process's user; the uid and None if this host has no such account."""
    uid = os.getuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:  # it may have an account on other hosts only
        return str(uid), None
    return entry.pw_name, entry.pw_dir


def read_account(uid: int) -> pwd.struct_passwd:
    """Return the account of a uid; NodeError where this host has none."""
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        raise NodeError(
            f"this node knows no user with uid {uid}",
            f"its sssd or LDAP client must know the site's users, see there: getent passwd {uid}",
        ) from None


def _group_name(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None


def user_exists(name: str) -> bool:
    """Tell whether this host knows a user of that name."""
    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False


def group_exists(name: str) -> bool:
    """Tell whether this host knows a group of that name."""
    try:
        return bool(grp.getgrnam(name))
    except KeyError:
        return False
