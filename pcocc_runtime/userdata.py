"""cloud-init user-data as it travels with a job: read, checked, and never changed."""

from __future__ import annotations

from pcocc_runtime import schema, yamlfile
from pcocc_runtime.errors import ConfigError, RequestError
from pcocc_runtime.filling import Filling
from pcocc_runtime.system import cloudinit, userfiles
from pcocc_runtime.templates import MAX_USER_DATA

_HEADER = "#cloud-config"
_LIST_HINT = "write a list, such as: users: [default]"


def read_template_data(filling: Filling) -> str | None:
    """Return the user-data of a template: a file's text, or a mapping as a cloud-config; None when it has none."""
    value = filling.chosen.values["user-data"]
    if value is None:
        return None
    if isinstance(value, str):
        return read_user_data(filling.path("user-data", value))
    import yaml

    text = f"{_HEADER}\n{yaml.safe_dump(value, sort_keys=False)}"
    problem = _find_problem(text)
    if problem:
        raise filling.wrong("user-data", f"cloud-init finds wrong: {problem}", "see cloud-init's documentation of that module")
    obstacle = find_obstacle(value)
    if obstacle:
        raise filling.wrong("user-data", obstacle, _LIST_HINT)
    return text


def read_user_data(path: str) -> str:
    """Return the text of a user-data file; RequestError when it cannot travel or cloud-init would not take it."""
    data = userfiles.read_start(path, MAX_USER_DATA + 1, "user-data file")
    if len(data) > MAX_USER_DATA:
        raise RequestError(f"user-data file {path} is larger than {MAX_USER_DATA >> 10} KiB",
                           "let it fetch the rest, for example with cloud-init's '#include'")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"user-data file {path} is not UTF-8 text (byte {error.start})",
                           "compressed and other binary user-data cannot be carried") from None
    tree = _parse(text, path) if _is_cloud_config(text) else None
    problem = _find_problem(text)
    if problem:
        raise RequestError(f"user-data file {path} is no cloud-config that cloud-init takes: {problem}",
                           f"see: cloud-init schema --config-file {path}")
    obstacle = find_obstacle(tree)
    if obstacle:
        raise RequestError(f"user-data file {path}: {obstacle}", _LIST_HINT)
    return text


def find_obstacle(tree: object) -> str | None:
    """Return why no command could run in a VM with this cloud-config, None when they can (docs/decisions/015)."""
    users = tree.get("users", []) if isinstance(tree, dict) else []
    if isinstance(users, list):
        return None
    return f"'users' is {schema.type_name(users)}, which would replace the user that commands run as in the VM"


def _parse(text: str, path: str) -> object:
    """Return what a cloud-config says, None when it is not YAML, of which cloud-init itself speaks."""
    try:
        return yamlfile.parse(text, path, []).plain()
    except yamlfile.TooMuch as error:
        raise RequestError(f"user-data file {error}", error.hint) from None
    except ConfigError:
        return None


def _is_cloud_config(text: str) -> bool:
    return text.partition("\n")[0].rstrip() == _HEADER


def _find_problem(text: str) -> str | None:
    return cloudinit.find_schema_error(text) if _is_cloud_config(text) else None
