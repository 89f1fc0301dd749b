"""cloud-init user-data as it travels with a job: read, judged, and passed on as it is."""

from __future__ import annotations

from pcocc_runtime.documents.cluster import MAX_USER_DATA
from pcocc_runtime.submit.entry import Entry
from pcocc_runtime.submit.submission import Submission
from pcocc_runtime.system import user_files
from pcocc_runtime.templates.row import TemplateSetting


def add_typed_user_data(submission: Submission, row: TemplateSetting, entries: list[Entry]) -> list[Entry]:
    """Return the typed user-data, which was read before, else the template's."""
    typed = submission.user_data
    return entries if typed is None else [Entry(row.name, row, typed, is_typed=True)]


def look_at_user_data(submission: Submission, entry: Entry) -> str:
    """Return the text of user-data, from a file or a mapping (cloud-config); what is wrong is noted or refused."""
    # 10 ms that jobs without user-data need not pay
    from pcocc_runtime.guest import cloud_config
    from pcocc_runtime.submit import user_data_check

    if isinstance(entry.value, str):
        path = submission.user_data_path if entry.is_typed else entry.value
        text = entry.value if entry.is_typed else read_user_data(path)
        user_data_check.check_file(submission, text, path)
    else:
        text = cloud_config.render_cloud_config(entry.value)
        user_data_check.check_mapping(submission, text, submission.filling.chosen.place("user-data"))
    return text


def read_user_data(path: str) -> str:
    """Return the text of a user-data file."""
    from pcocc_runtime.guest.user_data import parse_user_data  # as above

    return parse_user_data(user_files.read_user_start(path, MAX_USER_DATA + 1, "user-data file"), path)
