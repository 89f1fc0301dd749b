"""Pieces of nft(8) text: tables replaced as a whole, chains, named sets."""

from __future__ import annotations

from collections.abc import Iterable


def render_removal(family: str, name: str) -> str:
    """Return text that deletes a table, or does nothing when there is none."""
    return f"add table {family} {name}\ndelete table {family} {name}\n"


def render_table(family: str, name: str, body: Iterable[str]) -> str:
    """Return text that replaces a table, in the one transaction nft makes of its input."""
    return f"{render_removal(family, name)}table {family} {name} {{\n{''.join(body)}}}\n"


def render_chain(name: str, hook: str, rules: Iterable[str]) -> str:
    """Return a chain; `hook` is its `type ...; policy ...` line without the last semicolon."""
    lines = "".join(f"  {rule}\n" for rule in rules)
    return f" chain {name} {{\n  {hook};\n{lines} }}\n"


def render_set(kind: str, name: str, declaration: str, elements: Iterable[str]) -> str:
    """Return a named `set` or `map`; nft has no syntax for an empty list of elements."""
    listed = ", ".join(elements)
    return f" {kind} {name} {{\n  {declaration};\n{f'  elements = {{ {listed} }}' + chr(10) if listed else ''} }}\n"
