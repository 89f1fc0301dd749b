"""Numbers that are not what they look like to people: YAML 1.1 takes 010 for eight, and 1:30 for ninety."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pcocc_runtime.settings.tree import Node

_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_SIXTIES = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+")
_DECIMAL_MODE = re.compile(r"[1-7][0-7]{2,3}")
_OCTAL_MEANT = "permissions"  # of files, in a cloud-config
HINT = "write the number that is meant, or put it in quotes if it is text"


def find_odd_numbers(node: Node, sixties: bool = False) -> Iterator[Node]:
    """Yield the numbers below a node that begin with 0, and with `sixties` those with colons."""
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            if key != _OCTAL_MEANT:
                yield from find_odd_numbers(child, sixties)
    elif isinstance(node.value, tuple):
        for child in node.value:
            yield from find_odd_numbers(child, sixties)
    elif isinstance(node.value, int) and (
        _OCTAL.fullmatch(node.raw) or (sixties and _SIXTIES.fullmatch(node.raw))
    ):
        yield node


def find_decimal_modes(node: Node) -> Iterator[Node]:
    """Yield the permissions below a node that were meant as octal digits, and are a decimal number."""
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            if key == _OCTAL_MEANT and isinstance(child.value, int) and _DECIMAL_MODE.fullmatch(child.raw):
                yield child
            yield from find_decimal_modes(child)
    elif isinstance(node.value, tuple):
        for child in node.value:
            yield from find_decimal_modes(child)


def find_number_notes(node: Node) -> list[str]:
    """Return a sentence with its place for each number of our own files that begins with 0."""
    return [
        str(one.error(f"{one.raw} is the number {one.value} in YAML, because it begins with 0 ({HINT})"))
        for one in find_odd_numbers(node)
    ]
