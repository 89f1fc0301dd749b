"""Frozen dataclasses as JSON text, and back: read so strictly that no field is missing, unknown or mistyped.

A dataclass is a mapping of its fields, without those that have their default, and with the `kind` of its
class where a field can hold one of several. Numbers are whole, from 0 to 2**64 - 1. A class has `of_former`
where a former version wrote it in another form.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from ipaddress import IPv4Network, IPv6Network
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

_T = TypeVar("_T")
_HIGHEST = 2**64 - 1
_NETWORKS = (IPv4Network, IPv6Network)
_PLAIN = (str, int, bool, NoneType)
_SHAPES: dict[Any, type] = {  # what types are in JSON
    **{one: one for one in _PLAIN}, tuple: list, frozenset: list, Mapping: dict, IPv4Network: str,
    IPv6Network: str,
}  # fmt: skip
_WORDS = {
    str: "text", int: "a number", bool: "true or false", NoneType: "null", list: "a list", dict: "a mapping",
    float: "a fraction",
}


def render_document(value: object, version: int) -> str:
    """Return a dataclass as text that `parse_document` turns into an equal one."""
    return json.dumps({"version": version, **_plan_tree(value)}, separators=(",", ":"), sort_keys=True)


def parse_document(
    kind: type[_T], version: int, text: str | bytes, clean: Callable[[str], str] | None = None
) -> _T:
    """Return the dataclass that a text was rendered from, its texts passed through `clean`; ValueError if none."""
    try:
        tree = json.loads(text)
        tree = _clean(tree, clean) if clean else tree
    except RecursionError:
        raise ValueError("its lists are nested too deep") from None
    if not isinstance(tree, dict) or "version" not in tree:
        raise ValueError("it is not a document of pcocc's")
    found = tree.pop("version")
    if type(found) is not int or found != version:
        raise ValueError(f"it has version {str(found)[:20]}, and this pcocc reads version {version}")
    document: _T = _build(kind, tree, "")
    return document


def _plan_tree(value: Any) -> Any:
    if isinstance(value, str | int | None):
        return value
    if is_dataclass(value):
        tree = {"kind": value.kind} if hasattr(value, "kind") else {}
        found = ((one, getattr(value, one.name)) for one in fields(value))
        return tree | {one.name: _plan_tree(held) for one, held in found if held != one.default}
    if isinstance(value, Mapping):
        return {str(key): _plan_tree(one) for key, one in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, _NETWORKS):
        return str(value)
    if isinstance(value, tuple):
        return list(value) if set(map(type, value)) <= {int, str} else [_plan_tree(one) for one in value]
    raise TypeError(f"a document cannot hold {value!r}")


def _clean(tree: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(tree, str):
        return clean(tree)
    if isinstance(tree, list):
        return [_clean(one, clean) for one in tree]
    if isinstance(tree, dict):
        return {clean(key): _clean(one, clean) for key, one in tree.items()}
    return tree


def _build(hint: Any, tree: Any, place: str) -> Any:
    """Return a value of the annotated type; `place` is where in the document, such as `networks.0`."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        found = next((one for one in inner if _find_misfit(one, tree) is None), None)
        if found is None:
            raise ValueError(f"{place} is not of a type that it may have")
        return _build(found, tree, place)
    if hasattr(hint, "of_former"):
        tree = hint.of_former(tree)
    misfit = _find_misfit(hint, tree)
    if misfit:
        raise ValueError(f"{place} {misfit}")
    if hint in _PLAIN:
        return tree
    if hint in _NETWORKS:
        return hint(tree)
    if origin is Mapping:
        return {
            _build_key(inner[0], key, place): _build(inner[1], one, _at(place, key))
            for key, one in tree.items()
        }
    if origin is frozenset:
        return frozenset(_build_many(inner[0], tree, place))
    if origin is tuple:
        return (
            _build_many(inner[0], tree, place) if inner[-1] is Ellipsis else _build_each(inner, tree, place)
        )
    if is_dataclass(hint):
        return _build_dataclass(hint, tree, place)
    return hint(*_build_each(tuple(_hints(hint).values()), tree, place))  # a named tuple


def _find_misfit(hint: Any, tree: Any) -> str | None:
    """Return why a tree cannot be a value of a type, as far as its outermost part tells."""
    shape: Any = _SHAPES.get(get_origin(hint) or hint) or (dict if is_dataclass(hint) else list)
    if type(tree) is not shape:
        return f"is {_WORDS[type(tree)]}, where {_WORDS[shape]} is expected"
    if shape is int and not 0 <= tree <= _HIGHEST:
        return f"is not between 0 and {_HIGHEST}"
    if hasattr(hint, "kind") and tree.get("kind") != hint.kind:
        return f"is not of kind {hint.kind}"
    return None


def _build_many(hint: Any, tree: list[Any], place: str) -> tuple[Any, ...]:
    if hint is int and tree and set(map(type, tree)) == {int} and min(tree) >= 0 and max(tree) <= _HIGHEST:
        return tuple(tree)  # thousands of ranks take no time
    return tuple(_build(hint, one, _at(place, number)) for number, one in enumerate(tree))


def _build_each(hints: tuple[Any, ...], tree: list[Any], place: str) -> tuple[Any, ...]:
    if len(tree) != len(hints):
        raise ValueError(f"{place} has {len(tree)} items, where {len(hints)} are expected")
    return tuple(
        _build(hint, one, _at(place, number))
        for number, (hint, one) in enumerate(zip(hints, tree, strict=True))
    )


def _build_dataclass(kind: Any, tree: dict[str, Any], place: str) -> Any:
    hints, known = _hints(kind), fields(kind)
    unknown = set(tree) - {one.name for one in known} - ({"kind"} if hasattr(kind, "kind") else set())
    if unknown:
        raise ValueError(f"{_at(place, min(unknown))} is unknown")
    missing = [one.name for one in known if one.name not in tree and one.default is one.default_factory is MISSING]
    if missing:
        raise ValueError(f"{_at(place, missing[0])} is missing")
    return kind(**{
        name: _build(hints[name], one, _at(place, name))
        for name, one in tree.items()
        if name in hints and name != "kind"
    })


def _build_key(hint: Any, key: str, place: str) -> Any:
    if hint is str:
        return key
    if not key.isascii() or not key.isdigit() or len(key) > 20 or str(int(key)) != key:
        raise ValueError(f"{_at(place, key)} is not one of its numbers")
    return int(key)


def _at(place: str, part: object) -> str:
    """Return where a part of what is at a place is."""
    name = str(part)[:40]
    return f"{place}.{name}" if place else name


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
