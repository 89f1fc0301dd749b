"""From a setting of a template to what the frozen document carries: filled in, looked at, allowed by the site.

What differs between settings stands in their rows, in templates/settings.py. The functions that a row names
are here: LOOKS by the kind of thing to look at, OPTIONS by the option of the command line that says the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from pcocc_runtime.settings import checks
from pcocc_runtime.submit import allowed, boot_image, storage, user_data
from pcocc_runtime.submit.entry import Entry
from pcocc_runtime.submit.submission import Submission
from pcocc_runtime.system import user_files
from pcocc_runtime.templates.row import Look, Option, TemplateSetting


def choose(submission: Submission, row: TemplateSetting) -> dict[str, Any]:
    """Return what the document's Group says of a setting, by its fields.

    ConfigError, with the place in the template, when a setting is refused; RequestError for a typed option.
    """
    value = submission.filling.chosen.values[row.name]
    if row.is_plain:
        return {str(row.field): value} if row.field else {}
    entries = _split(row, value)
    if row.option:
        entries = OPTIONS[row.option](submission, row, entries)
    carried = checks.gather(lambda entry: _carry(submission, entry), entries)
    if row.parts:
        return {str(entry.row.field): one for entry, one in zip(entries, carried, strict=True)}
    if isinstance(row.field, tuple):
        return dict(zip(row.field, carried[0], strict=True)) if carried[0] else {}
    return {row.field: tuple(carried) if row.each else carried[0]} if row.field else {}


def _split(row: TemplateSetting, value: Any) -> list[Entry]:
    """Return the entries of a setting's value."""
    if row.parts:
        return [Entry(row.name, part, value[part.name], part.name) for part in row.parts] if value else []
    if row.each:
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        return [Entry(row.name, row, one, item) for item, one in items]
    return [Entry(row.name, row, value)]


def _carry(submission: Submission, entry: Entry) -> Any:
    """Return what the document gets for an entry."""
    row, filling = entry.row, submission.filling
    if entry.value is None:
        return None
    if row.fill and not entry.is_typed:
        entry = entry._replace(value=row.fill(filling, entry.key, entry.value, entry.item))
    with contextlib.nullcontext() if entry.is_typed else filling.chosen.at(entry.key, entry.item):
        carried = LOOKS[row.look](submission, entry) if row.look else entry.value
        if row.limit and (entry.is_typed or filling.chosen.is_users(entry.key)):
            allowed.ensure_allowed(submission, entry, row.limit)
    return carried


def look_at_file(_submission: Submission, entry: Entry) -> Any:
    """Return the path of a file, which the user must be able to read."""
    user_files.read_user_start(entry.value, 1, entry.noun)
    return entry.value


LOOKS: Mapping[Look, Callable[[Submission, Entry], Any]] = {
    "directory": storage.look_at_directory,
    "drive": storage.look_at_drive,
    "file": look_at_file,
    "image": boot_image.look_at_image,
    "user-data": user_data.look_at_user_data,
}
OPTIONS: Mapping[Option, Callable[[Submission, TemplateSetting, list[Entry]], list[Entry]]] = {
    "image": boot_image.add_typed_image,
    "mount": storage.add_typed_mounts,
    "user-data": user_data.add_typed_user_data,
}
