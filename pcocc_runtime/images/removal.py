"""Removing layers from a repository, unless a VM on any host has them open.

To find that out a layer may have to be moved aside; it is put back if it is in use.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from pcocc_runtime.images import claims, in_use, metadata, repository
from pcocc_runtime.images.references import Repo
from pcocc_runtime.system import files

_ASIDE = "aside"  # directory in a work directory, for layers that may be in use


def remove_unused_layer(repo: Repo, layer: str) -> bool:
    """Delete a layer that no metadata refer to; return False, and keep it, when a QEMU on any host has it open.

    An NFS client that keeps its locks to itself reports them only when the file is changed. The mode of another user's file
    cannot be changed, but whoever may delete it may rename it, which is a change, too. Needs the repository's lock.
    """
    path = repository.layer_file(repo, layer)
    if in_use.is_in_use(path):
        return False
    if not in_use.recall(path) and path.exists():
        parent, rescue = repository.work_parent(repo), functools.partial(_put_back, repo)
        with claims.open_work(parent, repository.WORK_PREFIX, shared=True, rescue=rescue) as work:
            aside = work / _ASIDE / layer
            files.make_like(aside.parent, work)
            os.rename(path, aside)
            if in_use.is_in_use(aside):
                return False  # the end of the block puts it back, as it does after an error
            os.unlink(aside)
    repository.remove_layer(repo, layer)
    return True


def sweep_repo(repo: Repo) -> int:
    """Remove the work directories whose process has ended, after the layers in them were put back; return how many there were."""
    return claims.sweep(repository.work_parent(repo), repository.WORK_PREFIX, functools.partial(_put_back, repo))


def _put_back(repo: Repo, work: Path) -> None:
    try:
        names = os.listdir(work / _ASIDE)
    except FileNotFoundError:
        return
    for name in names:
        target = repository.layer_file(repo, name)
        if metadata.is_layer(name, name[:2]) and not target.exists():  # else the same layer has been added again
            files.make_like(target.parent, Path(repo.path))
            os.rename(work / _ASIDE / name, target)
