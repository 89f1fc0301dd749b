"""Which users cloud-init makes from a user's cloud-config and pcocc's, and whether commands can log in as theirs.

This does what cloud-init's module of users does, as far as it matters here: distros/ug_util.py,
config/cc_users_groups.py and distros/__init__.py of 22.4 to 26.2. Where the old key `user` and pcocc's users
set the same thing, `user` wins up to release 25, and pcocc's users in 26.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pcocc_runtime.guest.cloud_passwords import find_expired
from pcocc_runtime.guest.user_data_fault import Fault

_OURS = "the job's key"
_SHUT = ("false", "nologin", "true")  # programs that run no command
_NO_HOME, _NEED_HOME = ("no_create_home", "system"), (
    "ssh_authorized_keys", "ssh_import_id", "ssh_redirect_user",
)


class Identities(NamedTuple):
    """Who submits, and the guest's user that commands run as, if that is not the submitter."""

    login: str = "root"
    command_user: str | None = None

    @property
    def target(self) -> str:
        """Return the name of the guest's user that commands run as."""
        return self.command_user or self.login


class _ModuleFails(Exception):
    """cloud-init's module of users would fail here, and make none of the users that follow."""

    def __init__(self, message: str, keys: tuple[str | int, ...]) -> None:
        super().__init__(message)
        self.keys = keys


def find_lockout(tree: Mapping[Any, Any], names: Identities, default: str = "") -> Fault | None:
    """Return why nobody could log in as the user that commands run as; the tree's `users` is a list, or missing.

    `default` is what the image's own user is called, if it matters.
    """
    for newest in (False, True):
        try:
            _make_all(tree, names, default, newest)
        except _ModuleFails as error:
            hint = (
                f"leave that out: pcocc gives {names.target} the job's key, without which no command can run in"
                " the VM"
            )
            return Fault(str(error), hint, error.keys)
    return find_expired(tree, names.target, _find_owner(tree, default))


def find_unmade(tree: Mapping[Any, Any], names: Identities, default: str = "") -> Fault | None:
    """Return why cloud-init would not make some user of a tree, when it does make the one that commands run as."""
    users = _gather(tree, names, default, False)
    for name, config in users.items():
        reason = _find_reason(config, name)
        if reason:
            message = f"{reason}: cloud-init would make neither {name!r} nor the users after it"
            hint = "write a name in quotes if it looks like a number, and only keys that cloud-init knows for users"
            return Fault(message, hint, _blame(tree, name, default))
    return None


def _make_all(tree: Mapping[Any, Any], names: Identities, default: str, newest: bool) -> None:
    """Go through the users as cloud-init does, up to the one commands run as; _ModuleFails if they cannot log in."""
    _check_groups(tree.get("groups", []))
    users = _gather(tree, names, default, newest)
    target = names.target
    for name, config in users.items():
        reason = _find_reason(config, name)
        keys = _blame(tree, name if reason else target, default)
        if reason:
            whom = (
                f"would not make {name!r}"
                if name == target
                else f"would make neither {name!r} nor {target!r}"
            )
            raise _ModuleFails(f"{reason}: cloud-init {whom}, the user that commands run as in the VM", keys)
        if name == target:
            if "snapuser" in config or config.get("ssh_authorized_keys") != [_OURS]:
                raise _ModuleFails(
                    f"gives {target!r}, the user that commands run as in the VM, other ssh keys than the job's", keys
                )
            if str(config.get("shell")).rpartition("/")[2] in _SHUT:
                raise _ModuleFails(f"gives {target!r} the shell {config['shell']}, which runs no command", keys)
            return
    message = f"leaves out {target!r}, the user that commands run as in the VM"
    raise _ModuleFails(message, _blame(tree, target, default))


def _gather(tree: Mapping[Any, Any], names: Identities, default: str, newest: bool) -> dict[str, dict[str, Any]]:
    """Return the users by name, in the order in which they are made (normalize_users_groups)."""
    old = _old_user(tree)
    image = _first_wins([old, {"name": default, "groups": ["adm"]}])  # images' own users have groups
    listed = [*_ours(names), *(tree.get("users") or [])] + ([{"name": "default"}] if old else [])
    users: dict[str, dict[str, Any]] = {}
    for entry in listed:
        if isinstance(entry, dict):
            entry = dict(entry)
            name = entry.pop("name", "default")
            users[name] = _first_wins([users.get(name) or {}, entry])
        else:
            for name in _words(entry):
                if name and name not in users:
                    users[name] = {}
    users = {name: _with_underscores(config) for name, config in users.items()}
    if "default" in users:
        config = users.pop("default")
        name = image.pop("name", default)
        if isinstance(name, list | dict | set):
            raise _ModuleFails("has a name that is not text, and cloud-init would make no user", ("user",))
        own = users.pop(name, {})
        groups = [own.get("groups", []), image.pop("groups", [])]
        if not all(map(_are_groups, groups)):
            raise _ModuleFails(
                "groups must be a list of names: otherwise cloud-init would make no user",
                _blame(tree, name, default),
            )
        own["groups"] = ",".join({word for one in groups for word in _words(one)})
        users[name] = _first_wins([own, config, image] if newest else [image, config, own])
    return users


def _old_user(tree: Mapping[Any, Any]) -> dict[str, Any]:
    old = tree.get("user")
    return {"name": old} if isinstance(old, str) and old else dict(old) if isinstance(old, dict) else {}


def _ours(names: Identities) -> list[dict[str, Any]]:
    """Return our own users, as guest/seed.py writes them."""
    keys: dict[str, Any] = {"ssh_authorized_keys": [_OURS]}
    ours: list[dict[str, Any]] = [{"name": "root", **keys}]
    if names.login != "root":
        ours.append({"name": names.login, "uid": 1, "primary_group": "1", "gecos": "", "homedir": "/",
                     "shell": "/bin/sh",
                     "sudo": "ALL", "lock_passwd": True, **keys})  # fmt: skip
    if names.command_user not in (None, "root", names.login):
        ours.append({"name": names.command_user, "sudo": "ALL", "lock_passwd": False, **keys})
    return ours


def _find_owner(tree: Mapping[Any, Any], default: str) -> Any:
    """Return the name of the image's own user, empty where cloud-init does not make it (extract_default)."""
    old = _old_user(tree)
    entries = [one if isinstance(one, str | list) else one.get("name", "default") for one in tree.get("users") or []]
    is_made = old or any("default" in _words(one) for one in entries if isinstance(one, str | list))
    return old.get("name", default) if is_made else ""


def _first_wins(configs: Iterable[Mapping[Any, Any]]) -> dict[Any, Any]:
    """Return merged mappings: the first that sets a key counts, unless one says how to merge it (mergemanydict)."""
    merged: dict[Any, Any] = {}
    for config in configs:
        how = str(config.get("merge_how", config.get("merge_type", "")))
        replaces = "replace" in how and "no_replace" not in how
        merged = {
            **merged,
            **{key: value for key, value in config.items() if replaces or _counts(value, key, merged)},
        }
    return merged


def _counts(value: Any, key: Any, merged: Mapping[Any, Any]) -> bool:
    """Tell whether a later value of a key counts: a mapping does after a text or a list."""
    return key not in merged or (isinstance(value, dict) and isinstance(merged[key], str | list))


def _with_underscores(config: Mapping[Any, Any]) -> dict[str, Any]:
    return {word: value for key, value in config.items() if (word := str(key).replace("-", "_").strip())}


def _words(value: Any) -> list[Any]:
    """Return the items of a list, or the words of a text with commas (util.uniq_merge)."""
    return [word for word in value.strip().split(",") if word] if isinstance(value, str) else list(value)


def _find_reason(config: Mapping[str, Any], name: Any) -> str | None:
    """Return why cloud-init fails on a user (cc_users_groups.handle, Distro.add_user)."""
    homeless, homely = [key for key in _NO_HOME if config.get(key)], [
        key for key in _NEED_HOME if config.get(key)
    ]
    if homeless and homely:
        return f"{homeless[0]} does not go with ssh keys"
    redirect = config.get("ssh_redirect_user")
    if redirect and ("ssh_authorized_keys" in config or "ssh_import_id" in config):
        return "ssh_redirect_user does not go with ssh keys"
    if redirect and redirect is not True and redirect != "default":
        return "ssh_redirect_user must be true, false or default"
    # root exists already, and cloud-init adds it to no group
    if config.get("groups") and not _are_groups(config["groups"]) and name != "root":
        return "groups must be a list of names"
    if config.get("groups") and not isinstance(config.get("primary_group") or "", str) and name != "root":
        return "primary_group must be the name of a group"  # without groups, it is left out
    if not isinstance(config.get("snapuser", ""), str):
        return "snapuser must be text"
    if "ssh_authorized_keys" in config and not _are_keys(config["ssh_authorized_keys"]):
        return "ssh_authorized_keys must be a list of keys"
    return (
        None
        if isinstance(name, str) and all(isinstance(key, str) for key in config)
        else "its name, or one of its keys, is not text"
    )


def _are_keys(value: Any) -> bool:
    """Tell whether cloud-init does not fail on keys for ssh (Distro.create_user)."""
    keys = list(value.values()) if isinstance(value, dict) else value
    return keys is not None and not (isinstance(keys, list) and any(isinstance(one, list | dict) for one in keys))


def _are_groups(value: Any) -> bool:
    return isinstance(value, str | list | dict) and all(isinstance(one, str) for one in value)


def _check_groups(groups: Any) -> None:
    """Raise _ModuleFails for groups that cloud-init cannot make (_normalize_groups, create_group)."""
    entries = groups if isinstance(groups, list) else [groups]
    for index, entry in enumerate(entries):
        right = isinstance(entry, str) or (
            isinstance(entry, dict)
            and all(isinstance(key, str) and _are_members(value) for key, value in entry.items())
        )
        if not right:
            message = "is not a group that cloud-init can make, and it would make no user either"
            raise _ModuleFails(message, ("groups", index) if isinstance(groups, list) else ("groups",))


def _are_members(value: Any) -> bool:
    """Tell whether cloud-init can go through the members of a group; of a mapping it takes the keys."""
    if isinstance(value, list | dict):
        return all(isinstance(one, str) for one in value)
    return isinstance(value, str)


def _blame(tree: Mapping[Any, Any], name: Any, default: str) -> tuple[str | int, ...]:
    """Return the keys that lead to the last entry about `name` in a user's cloud-config."""
    aliases = {name, "default"} if name == default else {name}
    users = tree.get("users") or []
    found = [
        index
        for index, one in enumerate(users)
        if isinstance(one, dict) and one.get("name", "default") in aliases
    ]
    old = _old_user(tree)
    if old and old.get("name", default) == name:
        return ("user",)
    return ("users", found[-1]) if found else ("users",)
