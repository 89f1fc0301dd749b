"""The user-data of a single array task: read when its VMs boot, because its name is not known before."""

from __future__ import annotations

from pcocc_runtime.documents.cluster import MAX_USER_DATA
from pcocc_runtime.errors import RequestError
from pcocc_runtime.system import user_files


def read_task_user_data(path: str) -> str:
    """Return the text of the file; RequestError when it is not text, or too large."""
    what = f"user-data file {path}"
    data = user_files.read_user_start(path, MAX_USER_DATA + 1, "user-data file")
    if len(data) > MAX_USER_DATA:
        hint = "let it fetch the rest, for example with cloud-init's '#include'"
        raise RequestError(f"{what} is larger than {MAX_USER_DATA >> 10} KiB", hint)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"{what} is not UTF-8 text (byte {error.start})", "save it as UTF-8") from None
