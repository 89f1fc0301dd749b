"""All that is wrong in a user's templates, as a submission would find it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pcocc_runtime.errors import ConfigError
from pcocc_runtime.settings.checks import Problems
from pcocc_runtime.settings.numbers import find_number_notes
from pcocc_runtime.site import admission
from pcocc_runtime.site.check import add_new, find_set
from pcocc_runtime.site.site import Site
from pcocc_runtime.system import accounts
from pcocc_runtime.templates import inherit
from pcocc_runtime.templates.template import Resolved, Template

if TYPE_CHECKING:
    from pcocc_runtime.submit.submission import Caller


def check_own(
    site: Site, every: Mapping[str, Template], caller: Caller, problems: Problems, notes: list[str]
) -> None:
    """Add to `problems` why jobs with one of the caller's templates would be refused, and to `notes` what to know."""
    from pcocc_runtime.submit import freeze  # only `template check` pays for it

    for one in every.values():
        if one.is_site or one.is_image:
            continue
        notes += find_number_notes(one.node)
        parents: Problems = []  # check_templates reports those
        chosen = inherit.resolve_known(every, one.name, site.default_set, parents)
        for error in [*freeze.find_problems(chosen, site, caller, notes), *_find_denials(chosen, site)]:
            add_new(error, problems)


def _find_denials(chosen: Resolved, site: Site) -> list[ConfigError]:
    if chosen.values["resource-set"] not in site.all_sets:
        return []
    try:
        with chosen.at("resource-set"):
            admission.ensure_admitted([find_set(site, chosen)], accounts.read_person_here)
    except ConfigError as error:
        return [error]
    return []
