"""A layer in a node's image cache, as the node's admin sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CachedLayer:
    """A cached layer: its bytes, when it was last used, whether a VM uses it, whether everybody may read it."""

    sha256: str
    stored: int
    last_use: float
    used: bool
    public: bool = True
