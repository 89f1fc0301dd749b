"""cloud-init user-data as it travels with a job: read, checked, and never changed."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from pcocc_runtime.errors import ConfigError, RequestError
from pcocc_runtime.settings import checks
from pcocc_runtime.settings.tree import TooMuch, parse_yaml
from pcocc_runtime.submit import cloud_init
from pcocc_runtime.system import user_files
from pcocc_runtime.templates.fill import Filling
from pcocc_runtime.templates.settings import MAX_USER_DATA

_HEADER = "#cloud-config"
# what else cloud-init knows a text by, in small letters (handlers.INCLUSION_TYPES_MAP), and what others read: JSON, PowerShell
_OTHER_HEADERS = ("#include", "#!", "#part-handler", "#cloud-boothook", "#cloud-config-archive", "#cloud-config-jsonp",
                  "## template: jinja", "text/x-shellscript-per-", "{", "#ps1")  # fmt: skip
_MIME_HEAD = 4096  # where cloud-init looks for the mark of a MIME message
# keys that are cloud-init's and hardly another reader's: a mapping that has one was meant as a cloud-config
_TELLTALE = frozenset({"apt", "bootcmd", "chpasswd", "package_update", "package_upgrade", "packages", "runcmd", "ssh_authorized_keys",
                       "ssh_pwauth", "users", "write_files", "yum_repos"})  # fmt: skip
_NO_TEXT = re.compile(r"([0-9.]+|True|False) is not of type 'string'")
_QUOTES = "put that value in quotes: YAML takes a bare 0644 for a number, and a bare yes for true"
_YAML_HINT = "indent with spaces, put a space after each colon, and quote text that holds ':', '#', '{' or '%'"


class Fault(NamedTuple):
    """What is wrong with a cloud-config, and what to do about it."""

    message: str
    hint: str


def read_template_data(filling: Filling) -> str | None:
    """Return the user-data of a template: a file's text, or a mapping as a cloud-config; None when it has none."""
    value = filling.chosen.values["user-data"]
    if value is None:
        return None
    if isinstance(value, str):
        return read_user_data(filling.path("user-data", value), filling.thorough)
    import yaml

    text = f"{_HEADER}\n{yaml.safe_dump(value, sort_keys=False)}"
    problem = cloud_init.find_schema_error(text)
    if problem:
        hint = _QUOTES if _NO_TEXT.search(problem) else "see cloud-init's documentation of that module"
        raise filling.wrong("user-data", f"cloud-init finds wrong: {problem}", hint)
    obstacle = find_merge_obstacle(value)
    if obstacle:
        raise filling.wrong("user-data", obstacle.message, obstacle.hint)
    return text


def read_user_data(path: str, thorough: bool = True) -> str:
    """Return the text of a user-data file; RequestError when it cannot travel or cloud-init would not take it."""
    data = user_files.read_start(path, MAX_USER_DATA + 1, "user-data file")
    if len(data) > MAX_USER_DATA:
        raise RequestError(f"user-data file {path} is larger than {MAX_USER_DATA >> 10} KiB",
                           "let it fetch the rest, for example with cloud-init's '#include'")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"user-data file {path} is not UTF-8 text (byte {error.start})",
                           "compressed and other binary user-data cannot be carried") from None
    if _is_cloud_config(text):
        _check_cloud_config(path, text, thorough)
    elif _lacks_header(text):
        raise RequestError(f"user-data file {path} does not begin with {_HEADER}: the guest's cloud-init would pass it over",
                           f"let {_HEADER} be its first line, with nothing before it")
    return text


def _check_cloud_config(path: str, text: str, thorough: bool) -> None:
    try:
        parse_yaml(text, path, [])
    except TooMuch as error:
        raise RequestError(f"user-data file {error}", error.hint) from None
    except ConfigError:
        pass  # told below, in cloud-init's terms
    tree, fault = parse_cloud_config(text)
    problem = cloud_init.find_schema_error(_with_plain_header(text)) if thorough and not fault else None
    if problem:
        fault = Fault(problem, _QUOTES if _NO_TEXT.search(problem) else f"see: cloud-init schema --config-file {path}")
    if fault:
        raise RequestError(f"user-data file {path} is no cloud-config that cloud-init takes: {fault.message}", fault.hint)
    obstacle = find_merge_obstacle(tree)
    if obstacle:
        raise RequestError(f"user-data file {path}: {obstacle.message}", obstacle.hint)


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
    return None, Fault(f"it is {kind} where cloud-init reads a mapping", "write keys and values, such as: packages: [vim]")


def _explain(error: Any, text: str) -> str:
    """Return what PyYAML finds wrong in a sentence: it knows the place as a mark, or of a character as its position."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line if mark else text.count("\n", 0, getattr(error, "position", 0))
    said = [getattr(error, name, None) for name in ("context", "problem")] if mark else str(error).splitlines()[:1]
    return f"it is not valid YAML in line {line + 1}: {' '.join(filter(None, said))}"


def find_merge_obstacle(tree: object) -> Fault | None:
    """Return why no command could run in a VM with this cloud-config, None when they can (docs/decisions/015)."""
    if not isinstance(tree, dict):
        return None
    users = tree.get("users", [])
    if not isinstance(users, list):
        return Fault(f"'users' is {checks.type_name(users)}, which would replace the user that commands run as in the VM",
                     "write a list, such as: users: [default]")
    if not _takes_vendor_data(tree.get("vendor_data", {})):
        return Fault("'vendor_data' keeps cloud-init from pcocc's own settings, by which commands run in the VM",
                     "leave vendor_data out: where the file and pcocc set the same value, the file's counts")
    return None


def _takes_vendor_data(value: object) -> bool:
    """Tell what cloud-init makes of the key vendor_data (stages.py, _consume_vendordata)."""
    if not isinstance(value, dict) or str(value.get("enabled", True)).lower() not in ("true", "1", "on", "yes"):
        return False
    return "text/cloud-config" not in str(value.get("disabled_handlers"))


def _is_cloud_config(text: str) -> bool:
    """Tell it as cloud-init does (handlers.type_from_starts_with)."""
    start = text.lstrip()[:32].lower()
    return start.startswith(_HEADER) and not start.startswith(_OTHER_HEADERS)


def _with_plain_header(text: str) -> str:
    """Return a cloud-config with the header that `cloud-init schema` insists on, and every other line where it was."""
    stripped = text.lstrip()
    first, *rest = stripped.split("\n", 1)
    skipped = text[: len(text) - len(stripped)].count("\n")
    return "\n".join([_HEADER + first[len(_HEADER) :], *[""] * skipped, *rest])


def _lacks_header(text: str) -> bool:
    """Tell whether a text was meant as a cloud-config, and nobody will know it for one."""
    if text.lstrip().lower().startswith(_OTHER_HEADERS) or "mime-version:" in text[:_MIME_HEAD].lower():
        return False
    tree, _fault = parse_cloud_config(text.removeprefix("\ufeff"))
    return isinstance(tree, dict) and not _TELLTALE.isdisjoint(tree)
