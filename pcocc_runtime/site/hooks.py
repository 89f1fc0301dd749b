"""A site's own programs at points of a virtual cluster's life (hooks/{submit,boot,end}.d), run as the user.

They get the cluster on stdin. See docs/decisions/044.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from pcocc_runtime.documents.hook import HookCluster, encode_hook_cluster
from pcocc_runtime.errors import RequestError, one_line

SUBMIT, BOOT, END = "submit", "boot", "end"
FOLDER = "hooks"
HOOK_SECONDS = 60


def list_hooks(confdir: str, point: str) -> list[Path]:
    """Return a point's programs in order of name, without those that begin with a dot or cannot be executed."""
    try:
        found = sorted(Path(confdir, FOLDER, f"{point}.d").iterdir())
    except OSError:
        return []
    return [
        path
        for path in found
        if not path.name.startswith(".") and path.is_file() and os.access(path, os.X_OK)
    ]


def run_hooks(confdir: str, cluster: HookCluster, seconds: float = HOOK_SECONDS) -> None:
    """Run the hooks of a point one after another; RequestError names the first that fails, with its last line."""
    text = encode_hook_cluster(cluster)
    for path in list_hooks(confdir, cluster.point):
        try:
            done = subprocess.run(
                [str(path)], input=text, capture_output=True, text=True, errors="replace", timeout=seconds,
                check=False, cwd="/",
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise RequestError(
                f"the site's hook {path} does not end within {seconds:.0f} s", "ask the admins"
            ) from None
        except OSError as error:
            raise RequestError(
                f"the site's hook {path} cannot be run: {error.strerror}", "ask the admins"
            ) from None
        if done.returncode:
            words = [line for line in done.stderr.splitlines() if line.strip()]
            why = one_line(words[-1])[:300] if words else f"it ended with status {done.returncode}"
            raise RequestError(f"the site's hook {path} refuses: {why}")
