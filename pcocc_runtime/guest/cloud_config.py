"""What a cloud-config says, and what is wrong with it: for cloud-init, which reads it, and for pcocc."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pcocc_runtime.guest.cloud_settings import find_file_fault
from pcocc_runtime.guest.cloud_users import Identities, find_lockout
from pcocc_runtime.guest.user_data_fault import YAML_HINT, Fault
from pcocc_runtime.settings import checks

HEADER = "#cloud-config"
# lists to which pcocc adds entries of its own: for one wrong entry, a module of cloud-init fails on the whole
# list (util.shellify, cc_write_files.py, cc_mounts.py)
_COMMANDS = ((str, list, type(None)), "commands, each a text or a list of words")
_LISTS: dict[str, tuple[tuple[type, ...], str]] = {
    "bootcmd": _COMMANDS,
    "runcmd": _COMMANDS,
    "write_files": ((dict,), "mappings, such as {path: /etc/motd, content: hello}"),
    "mounts": ((object,), "lists, such as [data, /data, virtiofs]"),
}
_STAGES = ("cloud_init_modules", "cloud_config_modules", "cloud_final_modules")
_NEEDED_MODULES = ("users_groups", "ssh")
_ROOT = Identities()


def parse_cloud_config(text: str) -> tuple[Any, Fault | None]:
    """Return what a cloud-config says, and why cloud-init would not take it for one."""
    import yaml

    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return None, Fault(_explain(error, text), _hint(error))
    except ValueError as error:  # a date such as 2001-99-99
        return None, Fault(f"it is not valid YAML: {error}", "put that value in quotes")
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        # PyYAML's, of values such as !!timestamp x
        return None, Fault(f"it is not valid YAML: {error}", YAML_HINT)
    except RecursionError:
        return None, Fault("its lists and mappings are nested too deeply", YAML_HINT)
    if tree is None or isinstance(tree, dict):
        return tree, None
    kind = "a list" if isinstance(tree, list) else checks.type_name(tree)
    return None, Fault(f"it must be a mapping, not {kind}", "write keys and values, such as: packages: [vim]")


def _explain(error: Any, text: str) -> str:
    """Return PyYAML's error as a sentence; its place is a mark, or for a bad character a position."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line if mark else text.count("\n", 0, getattr(error, "position", 0))
    said = (
        [getattr(error, name, None) for name in ("context", "problem")]
        if mark
        else str(error).splitlines()[:1]
    )
    return f"it is not valid YAML in line {line + 1}: {' '.join(filter(None, said))}"


def _hint(error: Any) -> str:
    if "could not determine a constructor for the tag" in str(error):
        return (
            "put that value in quotes, or leave out its tag, the word that begins with '!': cloud-init knows only"
            " YAML's own tags"
        )
    if "expected a single document" in str(error):
        return "leave out the line '---': cloud-init reads one document, and nothing of a text that has two"
    if "unacceptable character #xdc" in str(error):  # half a surrogate pair: a byte that was no UTF-8
        return (
            "encode that part of the MIME message as base64: otherwise cloud-init misreads its letters that are"
            " not ASCII"
        )
    return YAML_HINT


def find_merge_obstacle(tree: object, names: Identities = _ROOT) -> Fault | None:
    """Return why no command could run in a VM with this cloud-config, None when one can (docs/decisions/015)."""
    if not isinstance(tree, dict):
        return None
    users = tree.get("users", [])
    if not isinstance(users, list):
        kind = checks.type_name(users)
        message = f"must be a list, not {kind}: it would replace the user that commands run as in the VM"
        return Fault(message, "write a list, such as: users: [default, {name: alice}]", ("users",))
    wrong = next((index for index, one in enumerate(users) if not _is_user(one)), None)
    if wrong is not None:
        message = "is not a user that cloud-init can make, and it would make none of the others either"
        hint = "write a name, in quotes if it looks like a number, or a mapping such as {name: alice}"
        return Fault(message, hint, ("users", wrong))
    if not _takes_vendor_data(tree.get("vendor_data", {})):
        message = (
            "keeps cloud-init from reading pcocc's own settings, without which no command can run in the VM"
        )
        hint = "leave vendor_data out: where the file and pcocc set the same value, the file's counts"
        return Fault(message, hint, ("vendor_data",))
    return _find_other_obstacle(tree) or find_lockout(tree, names)


def _find_other_obstacle(tree: Mapping[Any, Any]) -> Fault | None:
    if not isinstance(tree.get("ssh_keys", {}), dict):
        message = (
            "must be a mapping: cloud-init would delete the VM's host keys and make none, and no command"
            " could run in the VM"
        )
        return Fault(message, "leave it out, or write keys, such as {rsa_private: ...}", ("ssh_keys",))
    for key, (kinds, needs) in _LISTS.items():
        value = tree.get(key, [])
        wrong = (
            [index for index, one in enumerate(value) if not isinstance(one, kinds)]
            if isinstance(value, list)
            else []
        )
        if wrong or not (isinstance(value, list) or (key == "runcmd" and value is None)):
            keys: tuple[str | int, ...] = (key, *wrong[:1])
            message = f"cannot be run: cloud-init fails on it, and would do nothing that {key} asks for"
            return Fault(message, f"{key} must be a list of {needs}", keys)
    named = {stage: tree[stage] for stage in _STAGES if stage in tree}
    if fault := find_file_fault(tree.get("write_files", [])):
        return fault
    if _STAGES[0] in named:
        entries = [
            one[0] if isinstance(one, list) and one else one
            for stage in named.values()
            if isinstance(stage, list)
            for one in stage
        ]
        missing = {*_NEEDED_MODULES} - {str(one).replace("-", "_") for one in entries}
        if missing:
            message = f"leaves out the module {min(missing)}, without which no command can run in the VM"
            return Fault(message, "add it, or leave that list out", (_STAGES[0],))
    return None


def _is_user(entry: object) -> bool:
    """Tell whether cloud-init takes an entry of `users` without failing (ug_util.py, _normalize_users)."""
    if isinstance(entry, dict):
        return _is_word(entry.get("name")) and all(isinstance(key, str) for key in entry)
    return isinstance(entry, str) or (isinstance(entry, list) and all(map(_is_word, entry)))


def _is_word(value: object) -> bool:
    return not isinstance(value, list | dict | set)


def _takes_vendor_data(value: object) -> bool:
    """Tell whether cloud-init reads pcocc's settings with this vendor_data (stages.py, _consume_vendordata).

    Its own mapping takes the place of a text or a list.
    """
    if isinstance(value, str | list):
        return True
    if not isinstance(value, dict):
        return False
    enabled = str(value.get("enabled", True)).lower() in ("true", "1", "on", "yes")
    return enabled and "text/cloud-config" not in str(value.get("disabled_handlers"))


def render_cloud_config(tree: Mapping[str, Any]) -> str:
    """Return the text of a cloud-config."""
    import yaml

    return f"{HEADER}\n{yaml.safe_dump(tree, sort_keys=False)}"


def with_plain_header(text: str) -> str:
    """Return a cloud-config with the header that `cloud-init schema` insists on, all other lines in place."""
    stripped = text.lstrip()
    first, *rest = stripped.split("\n", 1)
    skipped = text[: len(text) - len(stripped)].count("\n")
    if not first.lower().startswith(HEADER):  # a MIME part that only its header calls a cloud-config
        return "\n".join([HEADER, *[""] * max(skipped - 1, 0), stripped])
    return "\n".join([HEADER + first[len(HEADER) :], *[""] * skipped, *rest])
