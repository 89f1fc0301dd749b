"""What `pcocc template` and `pcocc config` show, as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pcocc_runtime.templates import DEFAULTS, Resolved


def render_list(every: Sequence[Resolved]) -> str:
    """Return a line for each template: name, whose it is, size, resource set, image, description."""
    rows = [("NAME", "FROM", "CPUS", "MEMORY", "RESOURCE-SET", "IMAGE", "DESCRIPTION")]
    for one in every:
        values = one.values
        first_line = str(values["description"] or "").strip().partition("\n")[0]
        rows.append((
            one.template.name, _owner(one), str(values["cpus"]), render_memory(values["memory"]),
            values["resource-set"] or "-", values["image"] or "-", first_line,
        ))
    return columns(rows)


def render_names(every: Sequence[Resolved]) -> str:
    """Return the names of templates, one a line, for scripts and completion."""
    return "".join(f"{one.template.name}\n" for one in every)


def render_list_json(every: Sequence[Resolved]) -> str:
    """Return all templates with all their settings as JSON."""
    return json.dumps([_as_tree(one) for one in every], indent=2) + "\n"


def render_one(one: Resolved) -> str:
    """Return a template's settings that are not the built-in defaults, and where each came from."""
    node = one.template.node
    rows = [("SETTING", "VALUE", "FROM")]
    for key in DEFAULTS:
        if key in one.origins or one.values[key] != DEFAULTS[key]:
            rows.append((key, _show(key, one.values[key]), _origin(one, key)))
    place = f"made of {node.file}" if one.template.is_image else f"defined in {node.file}:{node.line}"
    return f"template {one.template.name}, {place}\n\n{columns(rows)}"


def render_one_json(one: Resolved) -> str:
    """Return one template with all its settings as JSON."""
    return json.dumps(_as_tree(one), indent=2) + "\n"


def render_memory(mebibytes: int) -> str:
    """Return an amount of memory as it is written in templates."""
    if not mebibytes:
        return "-"
    return f"{mebibytes // 1024}G" if mebibytes % 1024 == 0 else f"{mebibytes}M"


def _owner(one: Resolved) -> str:
    return "image" if one.template.is_image else "site" if one.template.is_site else "user"


def _origin(one: Resolved, key: str) -> str:
    origin = one.origins.get(key)
    if origin is None:
        return "the site's default"
    return "this template" if origin == one.template.name else origin


def _show(key: str, value: Any) -> str:
    if key == "memory":
        return render_memory(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    return json.dumps(value) if isinstance(value, Mapping | tuple | list) else str(value).strip().replace("\n", " ")


def _as_tree(one: Resolved) -> dict[str, Any]:
    node = one.template.node
    return {
        "name": one.template.name,
        "from": _owner(one),
        "file": node.file,
        "line": node.line,
        "settings": {key: {"value": one.values[key], "inherited-from": _inherited(one, key)} for key in DEFAULTS},
    }


def _inherited(one: Resolved, key: str) -> str | None:
    origin = one.origins.get(key)
    return None if origin == one.template.name else origin


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines, each column as wide as it must be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)
