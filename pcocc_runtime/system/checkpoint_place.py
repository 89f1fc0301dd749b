"""The directory that a user names for a checkpoint: free, empty, or one that holds an older checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

from pcocc_runtime.documents.checkpoint import CURRENT, WHOLE_FILE
from pcocc_runtime.errors import RequestError

_ANOTHER = "name another directory"


def ensure_replaceable(target: Path) -> None:
    """Raise RequestError unless the directory is free, empty, or an older checkpoint."""
    try:
        names = {one.name for one in target.iterdir() if not one.name.startswith(".")}
    except FileNotFoundError:
        return
    except OSError as error:
        raise RequestError(f"{target} cannot be read: {error.strerror}", _ANOTHER) from None
    if names - {CURRENT} or not _leads_to_older(target / CURRENT):
        hint = "name a new directory, or an empty one"
        raise RequestError(f"{target} has files that do not belong to a checkpoint", hint)


def ensure_makable(target: Path) -> None:
    """Raise RequestError unless a checkpoint can be made there, as far as can be told before."""
    ensure_replaceable(target)
    place = target if target.exists() else target.parent
    if not place.is_dir():
        raise RequestError(f"{place} is not a directory", _ANOTHER)
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        raise RequestError(f"you may not write to {place}", _ANOTHER)


def _leads_to_older(link: Path) -> bool:
    """Tell whether a link is missing or ours. What it leads to will be removed, and a user's own may lead anywhere."""
    if not os.path.lexists(link):
        return True
    name = os.readlink(link) if link.is_symlink() else ""
    older = link.with_name(name) if name.startswith(".") and "/" not in name and name != ".." and name != "." else None
    return older is not None and (not older.exists() or (older / WHOLE_FILE).is_file())
