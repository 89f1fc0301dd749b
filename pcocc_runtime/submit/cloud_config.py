"""What a cloud-config says, and what is wrong with it: for cloud-init, which reads it, and for pcocc."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from pcocc_runtime.settings import checks

HEADER = "#cloud-config"
# how other user-data begins, in small letters: cloud-init's (handlers.INCLUSION_TYPES_MAP), JSON, PowerShell
_OTHER_HEADERS = (
    "#include", "#!", "#part-handler", "#cloud-boothook", "#cloud-config-archive", "#cloud-config-jsonp",
    "## template: jinja", "text/x-shellscript-per-", "{", "#ps1",
)  # fmt: skip
_MIME_HEAD = 4096  # where cloud-init looks for the mark of a MIME message
# keys that are cloud-init's and hardly another reader's: a mapping that has one was meant as a cloud-config
_TELLTALE = frozenset({
    "apt", "bootcmd", "chpasswd", "package_update", "package_upgrade", "packages", "runcmd",
    "ssh_authorized_keys", "ssh_pwauth", "users", "write_files", "yum_repos",
})  # fmt: skip
NO_TEXT = re.compile(r"([0-9.]+|True|False) is not of type 'string'")
QUOTES = "put that value in quotes: YAML takes a bare 0644 for a number, and a bare yes for true"
_YAML_HINT = "indent with spaces, put a space after each colon, and quote text that holds ':', '#', '{' or '%'"


class Fault(NamedTuple):
    """What is wrong with a cloud-config, what to do about it, and the keys that lead to it."""

    message: str
    hint: str
    keys: tuple[str | int, ...] = ()


def parse_cloud_config(text: str) -> tuple[Any, Fault | None]:
    """Return what a cloud-config says, and why cloud-init would not take it for one."""
    import yaml

    try:
        tree = yaml.safe_load(text)
    except yaml.constructor.ConstructorError:
        return None, None  # a tag that we do not know: of that cloud-init itself speaks
    except yaml.YAMLError as error:
        return None, Fault(_explain(error, text), _YAML_HINT)
    except ValueError as error:  # a date such as 2001-99-99
        return None, Fault(f"it is not valid YAML: {error}", "put that value in quotes")
    except RecursionError:
        return None, Fault("its lists and mappings are nested too deeply", _YAML_HINT)
    if tree is None or isinstance(tree, dict):
        return tree, None
    kind = "a list" if isinstance(tree, list) else checks.type_name(tree)
    return None, Fault(f"it must be a mapping, not {kind}", "write keys and values, such as: packages: [vim]")


def _explain(error: Any, text: str) -> str:
    """Return what PyYAML finds wrong in a sentence; it says where by a mark, or for a character by its position."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line if mark else text.count("\n", 0, getattr(error, "position", 0))
    said = [getattr(error, name, None) for name in ("context", "problem")] if mark else str(error).splitlines()[:1]
    return f"it is not valid YAML in line {line + 1}: {' '.join(filter(None, said))}"


def find_merge_obstacle(tree: object) -> Fault | None:
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
        message = "is no user that cloud-init can make, and it would make none of the others either"
        hint = "write a name, in quotes if it looks like a number, or a mapping such as {name: alice}"
        return Fault(message, hint, ("users", wrong))
    if not _takes_vendor_data(tree.get("vendor_data", {})):
        message = "keeps cloud-init from reading pcocc's own settings, without which no command can run in the VM"
        hint = "leave vendor_data out: where the file and pcocc set the same value, the file's counts"
        return Fault(message, hint, ("vendor_data",))
    return None


def _is_user(entry: object) -> bool:
    """Tell whether cloud-init takes an entry of `users` without failing (ug_util.py, _normalize_users)."""
    if isinstance(entry, dict):
        return _is_word(entry.get("name")) and all(isinstance(key, str) for key in entry)
    return isinstance(entry, str) or (isinstance(entry, list) and all(map(_is_word, entry)))


def _is_word(value: object) -> bool:
    return not isinstance(value, list | dict | set)


def _takes_vendor_data(value: object) -> bool:
    """Tell what cloud-init makes of the key vendor_data (stages.py, _consume_vendordata)."""
    if not isinstance(value, dict):
        return False
    enabled = str(value.get("enabled", True)).lower() in ("true", "1", "on", "yes")
    return enabled and "text/cloud-config" not in str(value.get("disabled_handlers"))


def render_cloud_config(tree: Mapping[str, Any]) -> str:
    """Return the text of a cloud-config."""
    import yaml

    return f"{HEADER}\n{yaml.safe_dump(tree, sort_keys=False)}"


def is_cloud_config(text: str) -> bool:
    """Tell it as cloud-init does (handlers.type_from_starts_with)."""
    start = text.lstrip()[:32].lower()
    return start.startswith(HEADER) and not start.startswith(_OTHER_HEADERS)


def with_plain_header(text: str) -> str:
    """Return a cloud-config with the header that `cloud-init schema` insists on, all other lines in place."""
    stripped = text.lstrip()
    first, *rest = stripped.split("\n", 1)
    skipped = text[: len(text) - len(stripped)].count("\n")
    return "\n".join([HEADER + first[len(HEADER) :], *[""] * skipped, *rest])


def lacks_header(text: str) -> bool:
    """Tell whether a text was meant as a cloud-config, and nobody will know it for one."""
    if text.lstrip().lower().startswith(_OTHER_HEADERS) or "mime-version:" in text[:_MIME_HEAD].lower():
        return False
    tree, _fault = parse_cloud_config(text.removeprefix("\ufeff"))
    return isinstance(tree, dict) and not _TELLTALE.isdisjoint(tree)
