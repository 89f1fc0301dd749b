"""Where the VMs of a job run."""

from __future__ import annotations

from typing import NamedTuple


class NodeLayout(NamedTuple):
    """One node of the boot step and the ranks of its VMs."""

    name: str
    ranks: tuple[int, ...]
