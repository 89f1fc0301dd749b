"""The small files of a checkpoint, which the starter of a job that goes on from it reads as well."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pcocc_runtime.documents.boot import Boot, Keys, decode_boot
from pcocc_runtime.documents.checkpoint import (
    BOOT_COPY,
    CURRENT,
    WHOLE_FILE,
    Checkpoint,
    StoredFile,
    damaged,
    decode_checkpoint,
)
from pcocc_runtime.documents.cluster import Cluster, decode_cluster
from pcocc_runtime.errors import RequestError
from pcocc_runtime.system import regular
from pcocc_runtime.system.copy import begin_sum

_LONGEST = 1 << 24  # bytes of such a file


def read_checkpoint(directory: Path) -> Checkpoint:
    """Return what a checkpoint's directory holds; RequestError when it is not one."""
    try:
        data = regular.read_start(directory / WHOLE_FILE, _LONGEST)
    except OSError as error:
        raise RequestError(
            f"the checkpoint {directory} cannot be read: {error.strerror}", f"see 'ls -l {directory}'"
        ) from None
    if data is None:
        raise RequestError(f"{directory} is no checkpoint: it has no {WHOLE_FILE}", "'pcocc checkpoint DIR' makes one")
    return decode_checkpoint(data, str(directory / WHOLE_FILE))


class Stored(NamedTuple):
    """A cluster with the path of its checkpoint, the keys that its guests know, and the job that has stored it."""

    cluster: Cluster
    keys: Keys
    job: int


def find_stored(directory: str, cluster: Cluster) -> Stored:
    """Return what the checkpoint that `directory` leads to now has of the cluster.

    RequestError when another cluster has been stored there since the job was submitted.
    """
    place = Path(os.path.realpath(Path(directory, CURRENT)))
    whole = read_checkpoint(place)
    boot = _read_boot(place, whole)
    if decode_cluster(boot.cluster) != replace(cluster, restart=None, checkpoints=None):
        text = f"the checkpoint in {directory} has been replaced by one of another cluster"
        raise RequestError(text, "submit the job anew")
    return Stored(replace(cluster, restart=str(place)), boot.keys, whole.job)


def find_own(cluster: Cluster, job: int) -> Stored | None:
    """Return the cluster as its job has stored it; None when it has not."""
    assert cluster.checkpoints is not None
    link = Path(cluster.checkpoints.directory, CURRENT)
    if not os.path.lexists(link):
        return None
    place = Path(os.path.realpath(link))
    whole = read_checkpoint(place)
    if whole.job != job:
        return None
    boot = _read_boot(place, whole)
    found = replace(decode_cluster(boot.cluster), restart=str(place), checkpoints=cluster.checkpoints)
    return Stored(found, boot.keys, job)


def _read_boot(place: Path, whole: Checkpoint) -> Boot:
    return decode_boot(read_small(place, whole, BOOT_COPY).decode(errors="replace"))


def read_small(directory: Path, whole: Checkpoint, name: str) -> bytes:
    """Return a file of a checkpoint; RequestError unless its content is what was stored."""
    one = next((one for one in whole.files if one.name == name), None)
    try:
        data = regular.read_start(directory / name, _LONGEST)
    except OSError as error:
        raise damaged(str(directory / name), error.strerror or "it cannot be read") from None
    if one is None or data is None:
        raise damaged(str(directory / name), "it is missing")
    machine = begin_sum()
    machine.update(data)
    ensure_content(directory, one, len(data), machine.hexdigest())
    return data


def ensure_content(directory: Path, one: StoredFile, size: int, digest: str) -> None:
    """Raise RequestError unless a file has the size and the sum that it was stored with."""
    if (size, digest) != (one.size, one.sha256):
        raise damaged(str(directory / one.name), "its content is not what was stored")
