"""A node's image cache as the site sets it and launchers use it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageCache:
    """Each node's own copies of layers, and how many bytes they may take."""

    size: int
    directory: str = "/var/cache/pcocc"
