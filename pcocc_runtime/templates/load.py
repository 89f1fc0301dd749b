"""The site's and the user's templates, read from their directories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcocc_runtime.settings.checks import Problems
from pcocc_runtime.settings.directories import list_drop_ins, read_tree
from pcocc_runtime.templates import inherit
from pcocc_runtime.templates.template import Template

if TYPE_CHECKING:
    from pathlib import PurePath


def load_templates(confdir: str | PurePath, user_dir: str | None, problems: Problems) -> dict[str, Template]:
    """Return the site's and the user's templates by name."""
    found = []
    for directory, is_site in ((confdir, True), (user_dir, False)):
        if directory:
            for path in (f"{directory}/templates.yaml", *list_drop_ins(f"{directory}/templates.d", problems)):
                found.append(inherit.parse_templates(read_tree(path, problems), is_site, problems))
    return inherit.merge(found, problems)
