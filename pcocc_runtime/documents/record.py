"""Typed records and how they are read from JSON, for code that every VM and every VM step runs.

A record is a typing.NamedTuple to mypy and to its users. When it runs, it is made without `typing`, whose
import takes a fifth of a step's start; tests/unit/test_house.py looks that nobody there imports it.
"""

from __future__ import annotations

from collections import namedtuple

__all__ = ["TYPE_CHECKING", "Record", "parse_record"]

TYPE_CHECKING = False  # mypy takes a variable of this name to be true
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NamedTuple, TypeVar
    from typing import NamedTuple as Record

    R = TypeVar("R", bound=NamedTuple)
else:

    class _Fields(type):
        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            """Return a named tuple of the annotated fields, with the methods of the class."""
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = body.get("__annotations__", {})
            defaults = [body.pop(field) for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            for key, value in body.items():
                if key not in ("__qualname__", "__module__"):
                    setattr(made, key, value)
            return made

    class Record(metaclass=_Fields):
        """A typing.NamedTuple in all but its import."""


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: type(value) is str,
    "str | None": lambda value: value is None or type(value) is str,
    "int": lambda value: type(value) is int,
    "int | None": lambda value: value is None or type(value) is int,
    "float": lambda value: type(value) in (int, float),
    "bool": lambda value: type(value) is bool,
    "list[int]": lambda value: type(value) is list and all(type(one) is int for one in value),
    "list[str]": lambda value: type(value) is list and all(type(one) is str for one in value),
    "dict[str, str]": lambda value: type(value) is dict and all(type(one) is str for one in value.values()),
    "Message": lambda value: type(value) is dict,  # of qemu/qmp.py
}


def parse_record(kind: type[R], tree: object) -> R:
    """Return a record from a mapping, whose other keys are ignored; ValueError names a missing or mistyped field."""
    if not isinstance(tree, dict):
        raise ValueError("it is not a mapping")
    values = {**kind._field_defaults, **tree}
    for field, wanted in kind.__annotations__.items():
        if field not in values:
            raise ValueError(f"{field} is missing")
        if not _CHECKS[wanted](values[field]):
            raise ValueError(f"{field} is not of the type {wanted}")
    return kind._make(values[field] for field in kind._fields)
