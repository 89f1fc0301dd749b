"""cloud-init user-data as it travels with a job: read, checked, and never changed."""

from __future__ import annotations

from pcocc_runtime.errors import ConfigError, RequestError
from pcocc_runtime.settings.tree import Node, TooMuch, parse_yaml
from pcocc_runtime.submit import cloud_init
from pcocc_runtime.submit.cloud_config import (
    HEADER,
    NO_TEXT,
    QUOTES,
    Fault,
    find_merge_obstacle,
    is_cloud_config,
    lacks_header,
    parse_cloud_config,
    render_cloud_config,
    with_plain_header,
)
from pcocc_runtime.submit.entry import Entry
from pcocc_runtime.submit.submission import Submission
from pcocc_runtime.system import user_files
from pcocc_runtime.templates.row import TemplateSetting
from pcocc_runtime.templates.values import MAX_USER_DATA


def add_typed_user_data(submission: Submission, row: TemplateSetting, entries: list[Entry]) -> list[Entry]:
    """Return the typed user-data, which was read before, else the template's."""
    typed = submission.user_data
    return entries if typed is None else [Entry(row.name, row, typed, is_typed=True)]


def look_at_user_data(submission: Submission, entry: Entry) -> str:
    """Return the text of user-data: that of a file, or of a mapping as a cloud-config."""
    if entry.is_typed:
        return entry.text
    if isinstance(entry.value, str):
        return read_user_data(entry.value, submission.filling.thorough)
    text = render_cloud_config(entry.value)
    place, fault = submission.filling.chosen.place("user-data"), find_merge_obstacle(entry.value)
    if fault:
        raise place.at(fault.keys).error(fault.message, fault.hint)
    problem = cloud_init.find_schema_error(text)
    if problem:
        hint = QUOTES if NO_TEXT.search(problem) else "see cloud-init's documentation of that module"
        raise place.error(f"is not a valid cloud-config: {problem}", hint)
    return text


def read_user_data(path: str, thorough: bool = True) -> str:
    """Return the text of a user-data file; RequestError when it is too large, or wrong for cloud-init or pcocc."""
    data = user_files.read_start(path, MAX_USER_DATA + 1, "user-data file")
    if len(data) > MAX_USER_DATA:
        hint = "let it fetch the rest, for example with cloud-init's '#include'"
        raise RequestError(f"user-data file {path} is larger than {MAX_USER_DATA >> 10} KiB", hint)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        hint = "compressed and other binary user-data cannot be used"
        raise RequestError(f"user-data file {path} is not UTF-8 text (byte {error.start})", hint) from None
    if is_cloud_config(text):
        _check_cloud_config(path, text, thorough)
    elif lacks_header(text):
        message = f"user-data file {path} does not begin with {HEADER}: the guest's cloud-init would ignore it"
        raise RequestError(message, f"make {HEADER} its first line, with nothing before it")
    return text


def _check_cloud_config(path: str, text: str, thorough: bool) -> None:
    place = Node({}, path, 0, "")
    try:
        place = parse_yaml(text, path, [])
    except TooMuch as error:
        raise RequestError(f"user-data file {error}", error.hint) from None
    except ConfigError:
        pass  # told below, in cloud-init's terms
    tree, fault = parse_cloud_config(text)
    obstacle = None if fault else find_merge_obstacle(tree)
    if obstacle:
        raise RequestError(f"user-data file {place.at(obstacle.keys).error(obstacle.message)}", obstacle.hint)
    problem = cloud_init.find_schema_error(with_plain_header(text)) if thorough and not fault else None
    if problem:
        hint = QUOTES if NO_TEXT.search(problem) else f"see: cloud-init schema --config-file {path}"
        fault = Fault(problem, hint)
    if fault:
        raise RequestError(f"user-data file {path} is not a valid cloud-config: {fault.message}", fault.hint)
