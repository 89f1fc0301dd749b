"""JSON patches, the #cloud-config-jsonp of cloud-init, applied as jsonpatch does there (RFC 6902)."""

from __future__ import annotations

import copy
import json
from typing import Any, NamedTuple

_NEEDS = {
    "add": "value", "replace": "value", "test": "value", "remove": "path", "move": "from", "copy": "from",
}  # fmt: skip


class NotPatch(Exception):
    """A text is not a JSON patch."""


class NotApplied(Exception):
    """A patch does not fit what it is applied to."""


class PatchStep(NamedTuple):
    """An operation with its place and its source, each as the keys that lead there, and its value."""

    operation: str
    place: tuple[str, ...]
    source: tuple[str, ...] = ()
    value: Any = None


def parse_patch(text: str) -> list[PatchStep]:
    """Return the steps of a patch; NotPatch when the text is not a patch."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        raise NotPatch("it is not JSON") from None
    if not isinstance(tree, list):
        raise NotPatch("it is not a list")
    return [_parse_step(one, number) for number, one in enumerate(tree, 1)]


def _parse_step(tree: Any, number: int) -> PatchStep:
    operation = tree.get("op") if isinstance(tree, dict) else None
    if not isinstance(operation, str) or operation not in _NEEDS:
        raise NotPatch(f"step {number} has none of the operations {', '.join(_NEEDS)}")
    missing = next((key for key in ("path", _NEEDS[operation]) if key not in tree), None)
    if missing:
        raise NotPatch(f"step {number} has no {missing!r}")
    source = _parse_pointer(tree["from"], number) if _NEEDS[operation] == "from" else ()
    return PatchStep(operation, _parse_pointer(tree["path"], number), source, tree.get("value"))


def _parse_pointer(text: Any, number: int) -> tuple[str, ...]:
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise NotPatch(f"step {number} has a path that does not begin with '/'")
    return tuple(word.replace("~1", "/").replace("~0", "~") for word in text.split("/")[1:])


def apply_patch(tree: dict[Any, Any], steps: list[PatchStep]) -> Any:
    """Return a patched copy of a tree; NotApplied when the tree lacks what a step needs."""
    root = [copy.deepcopy(tree)]  # a list of one, so that the whole tree has a place too
    for step in steps:
        value = copy.deepcopy(step.value)
        if step.source or step.operation in ("move", "copy"):
            value = copy.deepcopy(_get(root, step.source))
        if step.operation == "move":
            _change(root, step.source, "remove", None)
        if step.operation != "test":
            _change(root, step.place, step.operation, value)
        elif _get(root, step.place) != value:
            raise NotApplied(f"{_show(step.place)} is not the value that a test step expects")
    return root[0]


def _get(root: list[Any], place: tuple[str, ...]) -> Any:
    found: Any = root[0]
    for word in place:
        try:
            found = found[int(word)] if isinstance(found, list) else found[word]
        except (LookupError, ValueError, TypeError):
            raise NotApplied(f"there is no {_show(place)}") from None
    return found


def _change(root: list[Any], place: tuple[str, ...], operation: str, value: Any) -> None:
    holder = _get(root, place[:-1]) if place else root
    word = place[-1] if place else "0"
    if not isinstance(holder, dict | list):
        raise NotApplied(f"there is no {_show(place)}")
    if operation in ("remove", "replace") or not place:
        _get(root, place)
        key: Any = int(word) if isinstance(holder, list) else word
        if operation == "remove":
            holder.pop(key)
        else:
            holder[key] = value
    elif isinstance(holder, dict):
        holder[word] = value
    elif word == "-" or (word.isascii() and word.isdigit() and int(word) <= len(holder)):
        holder.insert(len(holder) if word == "-" else int(word), value)
    else:
        raise NotApplied(f"there is no {_show(place)}")


def _show(place: tuple[str, ...]) -> str:
    return "/" + "/".join(place) if place else "the whole document"
