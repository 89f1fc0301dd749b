"""Settings as tables: which keys a mapping may have, and the check that turns each value into its type."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, get_origin, get_type_hints

from pcocc_runtime.errors import ConfigError
from pcocc_runtime.settings.tree import Node

CPU_MODEL = r"[A-Za-z0-9._=,+-]{1,256}"
Check = Callable[[Node], Any]
Problems = list[ConfigError]

_SIZES = {"": 1, "M": 1, "G": 1024, "T": 1024 * 1024}
_MOST_MEMORY = 64 * 1024 * 1024
_TYPES = ((bool, "true or false"), (int, "a whole number"), (float, "a number"), (str, "text"),
          (tuple, "a list"), (dict, "a mapping"), (type(None), "nothing"))


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a mapping; `note` tells the admin that a key is accepted and has no effect, and why."""

    name: str
    check: Check
    required: bool = False
    note: str | None = None


def table_of(kind: type) -> tuple[Setting, ...]:
    """Return the keys of the mapping that a dataclass is made of.

    They are its fields that say Annotated[TYPE, CHECK], with '-' for '_'; one without a default is required.
    """
    hints = get_type_hints(kind, include_extras=True)
    table = []
    for one in fields(kind):
        if get_origin(hints[one.name]) is Annotated:
            (check,) = hints[one.name].__metadata__
            required = one.default is one.default_factory is MISSING
            table.append(Setting(one.name.replace("_", "-"), check, required))
    return tuple(table)


def as_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked values of such a mapping by the names of its fields."""
    return {key.replace("-", "_"): value for key, value in values.items()}


def page_size(node: Node) -> str:
    """Check for the pages that guests' memory is made of; YAML reads a bare `off` as false."""
    return "off" if node.value is False else str(choice("off", "auto", "2M", "1G")(node))


class Several(ConfigError):
    """All errors of one setting; shown as one error, it reads like the first of them."""

    def __init__(self, every: Sequence[ConfigError]) -> None:
        first = every[0]
        super().__init__(first.message, first.file, first.line, first.key, first.hint)
        self.every = tuple(every)


def add_problem(problems: Problems, error: ConfigError) -> None:
    """Add an error, or each one of several, to `problems`."""
    problems += error.every if isinstance(error, Several) else (error,)


def gather(check: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Return the value of `check` for every item; the errors of all items are raised together."""
    problems: Problems = []
    values = []
    for item in items:
        try:
            values.append(check(item))
        except ConfigError as error:
            add_problem(problems, error)
    raise_problems(problems)
    return values


def raise_problems(problems: Problems) -> None:
    """Raise the problems that were found, if there are any."""
    if problems:
        raise problems[0] if len(problems) == 1 else Several(problems)


def find_setting_notes(node: Node, table: Sequence[Setting]) -> list[str]:
    """Return a sentence with its place for each key of a mapping that is accepted and has no effect."""
    notes = {setting.name: setting.note for setting in table if setting.note}
    found = node.value.items() if isinstance(node.value, dict) else ()
    return [str(child.error(notes[key])) for key, child in found if key in notes]


def read_mapping(node: Node, table: Sequence[Setting], problems: Problems) -> dict[str, Any]:
    """Return the checked values of the keys that are there; what is wrong is added to `problems`."""
    if not isinstance(node.value, dict):
        problems.append(mismatch(node, "a mapping"))
        return {}
    known = {setting.name: setting for setting in table}
    values: dict[str, Any] = {}
    for key, child in node.value.items():
        if key not in known:
            problems.append(unknown_key(child, key, known))
            continue
        try:
            values[key] = known[key].check(child)
        except ConfigError as error:
            add_problem(problems, error)
    missing = [setting for setting in table if setting.required and setting.name not in node.value]
    problems += [node.error(f"{setting.name} is missing") for setting in missing]
    return values


def read_named(node: Node, what: str, problems: Problems) -> Mapping[str, Node]:
    """Return the entries of a file that maps names to definitions; a wrong name is a problem."""
    if not isinstance(node.value, dict):
        problems.append(mismatch(node, f"a mapping of {what} names"))
        return {}
    for name, child in node.value.items():
        if not (is_template_name(name) if what == "template" else is_name(name)):
            problems.append(child.error(f"{name!r} cannot name a {what}", name_hint(what)))
    return node.value


def is_name(text: str) -> bool:
    """Tell whether a text follows the rule for names."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text) is not None


def is_template_name(text: str) -> bool:
    """Tell whether a text may name a template: slashes are allowed, as in files of the original pcocc."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,63}", text) is not None


def name_hint(what: str) -> str:
    """Return the rule for names."""
    slash = "'/', " if what == "template" else ""
    rule = f"has letters, digits, '_', '.', '-', {slash}at most 64, and begins with a letter or digit"
    return f"the name of a {what} {rule}"


def unknown_key(node: Node, key: str, known: Mapping[str, Any]) -> ConfigError:
    """Return the error for a key nobody knows, with the nearest one that exists."""
    import difflib  # 3 ms, only for a message

    near = difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known settings: {', '.join(sorted(known))}"
    return node.error("unknown setting", hint)


def type_name(value: Any) -> str:
    """Return what users call the type of a YAML value."""
    return next((name for kind, name in _TYPES if isinstance(value, kind)), type(value).__name__)


def mismatch(node: Node, expected: str, hint: str | None = None) -> ConfigError:
    """Return the error for a value of the wrong type."""
    shown = f" {node.raw!r}" if node.raw else ""
    if node.value is None and node.raw == "~":
        hint = "a bare ~ is YAML's word for nothing: write '~' in quotes for your home directory"
    return node.error(f"expected {expected}, found {type_name(node.value)}{shown}", hint)


def text(node: Node) -> str:
    """Check for text on one line."""
    if not isinstance(node.value, str):
        raise mismatch(node, "text", "put it in quotes" if node.raw else None)
    if any(not char.isprintable() for char in node.value):
        raise node.error("expected text on one line without control characters")
    return node.value


def prose(node: Node) -> str:
    """Check for text of any number of lines."""
    if not isinstance(node.value, str):
        raise mismatch(node, "text", "put it in quotes" if node.raw else None)
    if "\0" in node.value:
        raise node.error("contains a NUL character, which cannot be passed to a program")
    return node.value


def boolean(node: Node) -> bool:
    """Check for true or false."""
    if not isinstance(node.value, bool):
        raise mismatch(node, "true or false")
    return node.value


def integer(low: int, high: int) -> Check:
    """Return the check for a whole number from `low` to `high`."""

    def check(node: Node) -> int:
        if not isinstance(node.value, int) or isinstance(node.value, bool):
            raise mismatch(node, "a whole number")
        if not low <= node.value <= high:
            raise node.error(f"{node.value} is not between {low} and {high}")
        return node.value

    return check


def choice(*words: str) -> Check:
    """Return the check for one of some words."""

    def check(node: Node) -> str:
        word = node.raw if isinstance(node.value, str | bool) else None
        if word not in words:
            raise mismatch(node, f"one of {', '.join(words)}")
        return word

    return check


def pattern(regex: str, expected: str) -> Check:
    """Return the check for a scalar whose text as written matches: YAML may take 52:54:00 for a base-60 number."""

    def check(node: Node) -> str:
        if isinstance(node.value, dict | tuple) or not re.fullmatch(regex, node.raw):
            raise mismatch(node, expected)
        return node.raw

    return check


def list_of(check: Check) -> Check:
    """Return the check for a list; its value is a tuple."""

    def check_list(node: Node) -> tuple[Any, ...]:
        if not isinstance(node.value, tuple):
            raise mismatch(node, "a list")
        return tuple(gather(check, node.value))

    return check_list


def mapping_of(check: Check) -> Check:
    """Return the check for a mapping with free keys."""

    def check_mapping(node: Node) -> dict[str, Any]:
        if node.value == ():  # pcocc 0.7 writes [] for an empty mapping
            return {}
        if not isinstance(node.value, dict):
            raise mismatch(node, "a mapping")
        return dict(zip(node.value, gather(check, node.value.values()), strict=True))

    return check_mapping


def record(table: Sequence[Setting]) -> Check:
    """Return the check for a nested mapping with a table of its own."""

    def check(node: Node) -> dict[str, Any]:
        problems: Problems = []
        values = read_mapping(node, table, problems)
        raise_problems(problems)
        return values

    return check


def optional(check: Check) -> Check:
    """Return the check that also takes null, as None."""
    return lambda node: None if node.value is None else check(node)


def absolute(node: Node) -> str:
    """Check for an absolute path."""
    path = text(node)
    if not path.startswith("/"):
        raise node.error(f"{path!r} is not an absolute path")
    return path


def space(node: Node) -> int:
    """Check for an amount of disk space such as 50G or 1T; value in bytes."""
    match = _match(r"([0-9]{1,9})([MGTmgt])(i?[Bb])?", node)
    if not match or not int(match[1]):
        raise mismatch(node, "an amount of disk space such as 50G or 1T")
    return int(match[1]) * _SIZES[match[2].upper()] << 20


def memory(node: Node) -> int:
    """Check for an amount of memory such as 512M or 2G, in MiB; a bare number is MiB, as in Slurm's --mem."""
    match = _match(r"([0-9]{1,9})([MGTmgt]?)(i?[Bb])?", node)
    if not match or not int(match[1]):
        raise mismatch(node, "an amount of memory such as 512M or 2G")
    amount = int(match[1]) * _SIZES[match[2].upper()]
    if amount > _MOST_MEMORY:
        raise node.error(f"{node.raw} is more than 64T, which no VM can have")
    return amount


def _match(regex: str, node: Node) -> re.Match[str] | None:
    return re.fullmatch(regex, node.raw) if isinstance(node.value, int | str) else None


def render_memory(mebibytes: int) -> str:
    """Return an amount of memory as `memory` takes it; a dash for 0, which stands for Slurm's default."""
    if not mebibytes:
        return "-"
    return f"{mebibytes // 1024}G" if mebibytes % 1024 == 0 else f"{mebibytes}M"
