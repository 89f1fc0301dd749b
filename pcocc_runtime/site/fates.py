"""What becomes of each key of an old file when it is turned into one of today."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pcocc_runtime.errors import ConfigError
from pcocc_runtime.settings.checks import Setting
from pcocc_runtime.settings.tree import Node

SAME, CHANGED, LEFT_OUT, TO_DO, REMARK = "kept", "changed", "left out", "to do", "note"
Rule = Callable[[Node], Mapping[str, Node] | str]
"""Returns the settings that a setting is today, or why it is left out."""


class Fate(NamedTuple):
    """What became of a key: one of the words above, and why; `place` is its file, line and path."""

    place: str
    what: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.what}{': ' if self.why else ''}{self.why}"


def fate_of(node: Node, what: str, why: str = "") -> Fate:
    """Return the fate of a key whose value is here."""
    return Fate(f"{node.file}:{node.line}: {node.path}" if node.path else node.file, what, why)


def translate_mapping(
    node: Node, table: Sequence[Setting], rules: Mapping[str, Rule], fates: list[Fate]
) -> dict[str, Any]:
    """Return the settings of a mapping as they are written today; a value that its check refuses is left out, to do."""
    found: dict[str, Any] = {}
    known = {setting.name: setting for setting in table}
    for key, child in node.value.items() if isinstance(node.value, dict) else ():
        rule = rules.get(key)
        new = rule(child) if rule else {key: child}
        if isinstance(new, str):
            fates.append(fate_of(child, LEFT_OUT, new))
        elif dropped := next((known[name].note for name in new if name in known and known[name].note), None):
            fates.append(fate_of(child, LEFT_OUT, dropped))
        elif problem := _find_problem(new, known):
            fates.append(fate_of(child, TO_DO, problem))
        else:
            values = {name: plain(one) for name, one in new.items()}
            is_same = list(new) == [key] and values[key] == plain(child)
            told = ", ".join(f"{name}: {value}" for name, value in values.items())
            fates.append(fate_of(child, SAME) if is_same else fate_of(child, CHANGED, f"now {told}"))
            found.update(values)
    return found


def _find_problem(new: Mapping[str, Node], known: Mapping[str, Setting]) -> str | None:
    """Return why a setting cannot be taken over."""
    for name, node in new.items():
        if name not in known:
            return "is no setting of pcocc; leave it out"
        try:
            known[name].check(node)
        except ConfigError as error:
            return f"{error.message}{f' ({error.hint})' if error.hint else ''}"
    return None


def said(text: str, node: Node) -> Node:
    """Return a text as a value in the place of another one."""
    return Node(text, node.file, node.line, node.path, text)


def plain(node: Node) -> Any:
    """Return a value to be written again: a number written as 52:54:00, 0x2000 or 010 stays as it is written."""
    if isinstance(node.value, dict):
        return {key: plain(one) for key, one in node.value.items()}
    if isinstance(node.value, tuple):
        return [plain(one) for one in node.value]
    if isinstance(node.value, int) and not isinstance(node.value, bool) and node.raw != str(node.value):
        return node.raw
    return node.value
