"""A site's own programs at points of a virtual cluster's life (hooks/{submit,boot,end}.d), run as the user.

They get the cluster on stdin. See docs/decisions/044.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcocc_runtime import naming
from pcocc_runtime.errors import RequestError, one_line

if TYPE_CHECKING:
    from pcocc_runtime.documents.cluster import Cluster

SUBMIT, BOOT, END = "submit", "boot", "end"
FOLDER = "hooks"
HOOK_SECONDS = 60


def describe_cluster(point: str, user: str, job: int | None, cluster: Cluster) -> dict[str, Any]:
    """Return what a hook gets, for JSON: a VM has what its template and the user's options came to.

    Memory is in MiB, 0 for Slurm's default.
    """
    vms: list[dict[str, Any]] = []
    for group in cluster.groups:
        for _one in range(group.count):
            vms.append({
                "name": naming.vm_name(len(vms)), "template": group.template, "image": group.origin or group.image,
                "cpus": group.cpus, "memory": group.memory, "resource_set": group.resource_set,
                "mounts": {mount.tag: mount.path for mount in group.mounts},
                "drives": [drive.path for drive in group.persistent],
            })  # fmt: skip
    return {"version": 1, "point": point, "job": job, "user": user, "vms": vms}


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


def run_hooks(confdir: str, description: Mapping[str, Any], seconds: float = HOOK_SECONDS) -> None:
    """Run the hooks of a point one after another; RequestError names the first that fails, with its last words."""
    text = json.dumps(description) + "\n"
    for path in list_hooks(confdir, str(description["point"])):
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
