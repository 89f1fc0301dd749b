"""Removing layers from a repository, unless a VM on any host has them open.

To find that out a layer may have to be moved aside; it is put back if it is in use.
"""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path

from pcocc_runtime.images import claims, in_use, metadata, placing, repository
from pcocc_runtime.images.references import Repo
from pcocc_runtime.system import held

_ASIDE = "aside"  # directory in a work directory, for layers that may be in use


def remove_unused_layer(repo: Repo, layer: str) -> bool:
    """Delete a layer that no metadata refer to; return False, and keep it, when a QEMU on any host has it open.

    An NFS client that keeps its locks to itself reports them only when the file is changed. The mode of
    another user's file cannot be changed, but whoever may delete it may rename it, which is a change, too.
    Needs the repository's lock.
    """
    path = repository.layer_file(repo, layer)
    if in_use.is_in_use(path):
        return False
    if not in_use.recall(path) and path.exists() and not _remove_aside(repo, layer):
        return False
    repository.remove_layer(repo, layer)
    return True


def _remove_aside(repo: Repo, layer: str) -> bool:
    """Delete a layer after moving it aside, where others can put it back; False when it is in use."""
    rescue = functools.partial(_put_back, repo)
    with (
        repository.open_parts(repo, ".tmp") as parent, repository.open_folder(repo, layer) as folder,
        claims.open_work(parent, repository.WORK_PREFIX, shared=True, private=False, rescue=rescue) as work,
    ):  # fmt: skip
        placing.make_like(work.path / _ASIDE, work.path)
        with held.hold_below(work.path, _ASIDE, links=False) as aside:
            os.rename(folder / layer, aside / layer)
            if in_use.is_in_use(aside / layer):
                return False  # the end of the block puts it back, as it does after an error
            os.unlink(aside / layer)
    return True


def sweep_repo(repo: Repo) -> int:
    """Remove work directories whose process has ended, their layers put back first; return how many there were."""
    with repository.open_parts(repo, ".tmp") as parent:
        return claims.sweep(parent, repository.WORK_PREFIX, functools.partial(_put_back, repo))


def _put_back(repo: Repo, work: Path) -> None:
    with contextlib.suppress(FileNotFoundError), held.hold_below(work, _ASIDE, links=False) as aside:
        for name in os.listdir(aside):
            if metadata.is_layer(name, name[:2]):
                with repository.open_folder(repo, name) as folder:
                    if not (folder / name).exists():  # else the same layer has been added again
                        os.rename(aside / name, folder / name)
