"""A layer in a node's image cache, as its admin sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CachedLayer:
    """A layer in a node's image cache: the bytes it takes, when it was used last, whether a VM uses it now, and if all may read it."""

    sha256: str
    stored: int
    last_use: float
    used: bool
    public: bool = True
