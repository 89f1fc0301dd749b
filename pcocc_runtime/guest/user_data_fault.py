"""What is wrong with user-data."""

from __future__ import annotations

from typing import NamedTuple

YAML_HINT = "indent with spaces, put a space after each colon, and quote text that holds ':', '#', '{' or '%'"


class Fault(NamedTuple):
    """What is wrong with a cloud-config, what to do about it, and the keys that lead to it."""

    message: str
    hint: str
    keys: tuple[str | int, ...] = ()
