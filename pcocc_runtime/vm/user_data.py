"""The user-data of a single array task: read and judged when its VMs boot, because its name is not known before."""

from __future__ import annotations

from pcocc_runtime.documents.cluster import MAX_USER_DATA
from pcocc_runtime.guest.cloud_users import Identities
from pcocc_runtime.guest.user_data import explain_in_file, parse_user_data, tell_faults
from pcocc_runtime.guest.user_data_judging import judge_user_data
from pcocc_runtime.system import user_files


def read_task_user_data(path: str, names: Identities, forced: bool, notes: list[str]) -> str:
    """Return the text of the file, adding to `notes` what is to be told of it; RequestError when it is refused."""
    text = parse_user_data(user_files.read_user_start(path, MAX_USER_DATA + 1, "user-data file"), path)
    tell_faults(judge_user_data(text, names), lambda one: explain_in_file(path, one), forced, notes)
    return text
