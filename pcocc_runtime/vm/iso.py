"""ISO 9660 images through pycdlib: the only importer of it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import PurePath

import pycdlib


def write_iso(path: PurePath, label: str, content: Mapping[str, str]) -> None:
    """Write an image with Joliet and Rock Ridge names, readable by its owner only."""
    image = pycdlib.PyCdlib()
    image.new(interchange_level=1, vol_ident=label, joliet=3, rock_ridge="1.09")
    for number, (name, text) in enumerate(content.items()):
        data = text.encode()
        image.add_fp(io.BytesIO(data), len(data), f"/FILE{number}.;1", rr_name=name, joliet_path=f"/{name}")
    with open(path, "wb", opener=_private) as stream:
        image.write_fp(stream)
    image.close()


def _private(path: str, flags: int) -> int:
    import os

    return os.open(path, flags | os.O_CLOEXEC, 0o600)
