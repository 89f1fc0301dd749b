"""What `pcocc template` and `pcocc config` show, as text."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pcocc_runtime.errors import one_line
from pcocc_runtime.settings.checks import render_memory
from pcocc_runtime.tables import columns
from pcocc_runtime.templates.settings import SETTINGS
from pcocc_runtime.templates.template import Resolved

_WIDTH = 80  # of a value that is shown; JSON has all of it


def render_templates(every: Sequence[Resolved]) -> str:
    """Return a line for each template: name, origin, size, resource set, image, description."""
    rows = [("NAME", "FROM", "CPUS", "MEMORY", "RESOURCE-SET", "IMAGE", "DESCRIPTION")]
    for one in every:
        values = one.values
        first_line = one_line(str(values["description"] or "").strip().partition("\n")[0])
        rows.append((
            one.template.name, _owner(one), str(values["cpus"]), render_memory(values["memory"]),
            values["resource-set"] or "-", values["image"] or "-", first_line,
        ))
    return columns(rows)


def render_names(every: Sequence[Resolved]) -> str:
    """Return the names of templates, one a line, for scripts and completion."""
    return "".join(f"{one.template.name}\n" for one in every)


def render_templates_json(every: Sequence[Resolved]) -> str:
    """Return all templates with all their settings as JSON."""
    return _dump([_as_tree(one) for one in every])


def render_one(one: Resolved) -> str:
    """Return a template's settings that are not the built-in defaults, and where each came from."""
    node = one.template.node
    rows = [("SETTING", "VALUE", "FROM")]
    for key, row in SETTINGS.items():
        if key in one.origins or one.values[key] != row.default:
            first, *more = [row.show(one.values[key])] if row.show else _show(one.values[key])
            rows += [(key, first, _origin(one, key)), *(("", line, "") for line in more)]
    file = one_line(node.file)
    place = f"made of {file}" if one.template.is_image else f"defined in {file}:{node.line}"
    return f"template {one.template.name}, {place}\n\n{columns(rows)}"


def render_one_json(one: Resolved) -> str:
    """Return one template with all its settings as JSON."""
    return _dump(_as_tree(one))


def _dump(tree: Any) -> str:
    return json.dumps(tree, indent=2, default=_as_text) + "\n"


def _as_text(value: Any) -> str:
    """Return values of user-data that JSON does not have as text: dates, and binary data in base 64."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value.isoformat())


def _owner(one: Resolved) -> str:
    return "image" if one.template.is_image else "site" if one.template.is_site else "user"


def _origin(one: Resolved, key: str) -> str:
    origin = one.origins.get(key)
    if origin is None:
        return "the site's default"
    return "this template" if origin == one.template.name else origin


def _show(value: Any) -> list[str]:
    """Return a value as lines, one for each item of a mapping or list."""
    if value is None or value in ((), {}, []):
        return ["none"]
    if isinstance(value, Mapping):
        return [_cut(f"{name}: {_flow(item)}") for name, item in value.items() if item is not None] or [
            "none"
        ]
    if isinstance(value, tuple):
        return [_cut(_flow(item)) for item in value]
    return [_cut(_flow(value))]


def _flow(value: Any) -> str:
    """Return a value as it is written in a template on one line; what is not set is left out."""
    if isinstance(value, Mapping):
        return (
            "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items() if item is not None) + "}"
        )
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else one_line(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def _as_tree(one: Resolved) -> dict[str, Any]:
    node = one.template.node
    return {
        "name": one.template.name, "from": _owner(one), "file": node.file, "line": node.line,
        "settings": {
            key: {"value": one.values[key], "inherited-from": _inherited(one, key)} for key in SETTINGS
        },
    }


def _inherited(one: Resolved, key: str) -> str | None:
    origin = one.origins.get(key)
    return None if origin == one.template.name else origin
