"""cloud-init's own check of user-data, where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

CHECK_SECONDS = 20
_ERRORS = re.compile(r"schema errors: (.*)", re.DOTALL)


def find_schema_error(text: str) -> str | None:
    """Return what `cloud-init schema` finds wrong with a cloud-config, None when nothing or when it cannot tell.

    Only its verdict counts: an installation that is broken, or of another kind of output, refuses nothing.
    """
    program = shutil.which("cloud-init")
    if program is None:
        return None
    with tempfile.TemporaryDirectory(prefix="pcocc-user-data-") as directory:
        path = Path(directory, "user-data")
        path.write_text(text)
        try:
            done = subprocess.run(
                [program, "schema", "--config-file", str(path)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", timeout=CHECK_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return None
    found = _ERRORS.search(done.stdout + done.stderr) if done.returncode else None
    return " ".join(found[1].replace(str(path), "it").split()) if found else None
