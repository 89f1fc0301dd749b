"""Filters, tests and functions that a Jinja template uses, and jinja in cloud-init does not have."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pcocc_runtime.guest.user_data_fault import Fault

# jinja2/filters.py, tests.py and defaults.py of jinja 3.1; cloud-init adds none
_FILTERS = frozenset({
    "abs", "attr", "batch", "capitalize", "center", "count", "d", "default", "dictsort", "e", "escape",
    "filesizeformat", "first", "float", "forceescape", "format", "groupby", "indent", "int", "items",
    "join", "last", "length", "list", "lower", "map", "max", "min", "pprint", "random", "reject",
    "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr", "slice", "sort",
    "string", "striptags", "sum", "title", "tojson", "trim", "truncate", "unique", "upper", "urlencode",
    "urlize", "wordcount", "wordwrap", "xmlattr",
})  # fmt: skip
_TESTS = frozenset({
    "boolean", "callable", "defined", "divisibleby", "eq", "equalto", "escaped", "even", "false",
    "filter", "float", "ge", "greaterthan", "gt", "in", "integer", "iterable", "le", "lessthan",
    "lower", "lt", "mapping", "ne", "none", "number", "odd", "sameas", "sequence", "string", "test",
    "true", "undefined", "upper",
})  # fmt: skip
_FUNCTIONS = frozenset({
    "caller", "cycler", "dict", "joiner", "lipsum", "namespace", "range", "super", "not", "and", "or",
    "in", "if", "else", "elif", "is", "for", "set", "do", "call", "filter", "with",
})  # fmt: skip
_RAW = re.compile(r"\{#.*?#\}|\{%[-+]?\s*raw\s*[-+]?%\}.*?\{%[-+]?\s*endraw\s*[-+]?%\}", re.DOTALL)
_TAG = re.compile(r"\{\{(?P<value>.*?)\}\}|\{%[-+]?(?P<tag>.*?)%\}", re.DOTALL)
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_FILTER = re.compile(r"(?:\||^\s*filter\s)\s*([A-Za-z_]\w*)")
_TEST = re.compile(r"\bis\s+(?:not\s+)?([A-Za-z_]\w*)")
_CALL = re.compile(r"(?<![\w.|])(?<!\|\s)(?<!\bis\s)(?<!\bnot\s)([A-Za-z_]\w*)\(")
_NAMING = re.compile(r"\s*(?:macro|set|for|with|call)\b")
_WORD = re.compile(r"[A-Za-z_]\w*")
_MOST = 3  # notes about one text


def find_unknown_names(text: str) -> list[Fault]:
    """Return a note for each filter, test or function of a template that jinja does not have: it would be left out."""
    body = _RAW.sub(lambda found: "\n" * found[0].count("\n"), text)
    given = set[str]()
    for tag in _TAG.finditer(body):
        if tag["tag"] and _NAMING.match(tag["tag"]):
            given.update(_WORD.findall(_QUOTED.sub("''", tag["tag"])))
    notes = dict[str, Fault]()
    for tag in _TAG.finditer(body):
        line = body.count("\n", 0, tag.start()) + 1
        for kind, name in _unknown_in(_QUOTED.sub("''", tag["value"] or tag["tag"] or ""), given):
            message = (
                f"uses the {kind} {name} in line {line}, which jinja does not have: cloud-init would leave the"
                " template out"
            )
            notes.setdefault(name, Fault(message, "look it up in Jinja's documentation of templates"))
    return list(notes.values())[:_MOST]


def _unknown_in(expression: str, given: set[str]) -> Iterator[tuple[str, str]]:
    for kind, pattern, known in (("filter", _FILTER, _FILTERS), ("test", _TEST, _TESTS)):
        for name in pattern.findall(expression):
            if name not in known:
                yield kind, name
    for name in _CALL.findall(expression):
        if name not in _FUNCTIONS | _FILTERS | _TESTS | given:
            yield "function", name
