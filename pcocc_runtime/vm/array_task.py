"""What `%a` stands for in the paths of a job array: the task's number, which is not known before its VMs boot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pcocc_runtime.documents.cluster import ARRAY_TASK, Checkpoints, Cluster, Group, Mount
from pcocc_runtime.documents.wire_steps import OPTION_CHECKPOINT, OPTION_MOUNT, OPTION_USER_DATA
from pcocc_runtime.errors import RequestError

ReadText = Callable[[str, Group], str]
Exists = Callable[[str], bool]


def fill_array_task(cluster: Cluster, task: int | None, exists: Exists, read: ReadText) -> Cluster:
    """Return the cluster with the task's number in place of `%a`, and with the task's own user-data.

    A directory that exists under a name with `%a` is meant as it is. RequestError if the job is not an array's task.
    """
    groups = tuple(_fill_group(group, task, exists, read) for group in cluster.groups)
    return replace(cluster, groups=groups, checkpoints=_fill_checkpoints(cluster.checkpoints, task))


def _fill_checkpoints(found: Checkpoints | None, task: int | None) -> Checkpoints | None:
    if found is None or ARRAY_TASK not in found.directory:
        if found is not None and task is not None:
            raise RequestError(
                f"--{OPTION_CHECKPOINT}: all tasks of the array would be stored in {found.directory}",
                f"write {ARRAY_TASK} in its name, which stands for the task's number",
            )
        return found
    return replace(found, directory=_fill(found.directory, task, f"--{OPTION_CHECKPOINT}"))


def _fill_group(group: Group, task: int | None, exists: Exists, read: ReadText) -> Group:
    mounts = tuple(_fill_mount(mount, task, exists) for mount in group.mounts)
    if group.task_user_data is None:
        return group if mounts == group.mounts else replace(group, mounts=mounts)
    path = _fill(group.task_user_data, task, f"--{OPTION_USER_DATA}")
    return replace(group, mounts=mounts, user_data=read(path, group), task_user_data=None)


def _fill_mount(mount: Mount, task: int | None, exists: Exists) -> Mount:
    if ARRAY_TASK not in mount.path or exists(mount.path):
        return mount
    return replace(mount, path=_fill(mount.path, task, f"--{OPTION_MOUNT}={mount.tag}"))


def _fill(path: str, task: int | None, option: str) -> str:
    if task is None:
        raise RequestError(
            f"{option}: {path} has {ARRAY_TASK}, the number of an array's task, but this job is not one",
            "submit it with --array, or write the path as it is",
        )
    return path.replace(ARRAY_TASK, str(task))
