"""The operation `@login`: gives the job's user what a login from outside the job needs, such as the job's key."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pcocc_runtime import naming
from pcocc_runtime.documents.login import HOST_KEY_FILE, KEY_FILE, Credentials, encode_credentials
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.steps.session import find_members


def check_words(words: Sequence[str]) -> None:
    """Refuse words: this operation takes none."""
    if words:
        raise RequestError("@login takes no words", "this is what 'pcocc ssh' runs")


def operate(job: int, _vm: str, _words: None) -> int:
    """Write it as a line."""
    directory = Path(naming.job_dir(job))
    try:
        members = find_members(str(directory))
        if members is None:
            raise FileNotFoundError
        key = (directory / KEY_FILE).read_text()
    except FileNotFoundError:
        raise NodeError(
            f"the VMs of job {job} are not running on this node", "they have ended, or are still to be booted"
        ) from None
    except ValueError as error:
        raise NodeError(str(error), "check that all nodes have the same version of pcocc") from None
    try:
        host_key = (directory / HOST_KEY_FILE).read_text()
    except FileNotFoundError:
        host_key = ""  # an older launcher has written none
    sys.stdout.write(encode_credentials(Credentials(key, host_key.strip(), members)))
    return 0
