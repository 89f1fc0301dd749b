"""All of a site's configuration at once, and all that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pcocc_runtime import admission, config, netfile, repos, schema, templates
from pcocc_runtime.errors import ConfigError, PcoccError
from pcocc_runtime.policy import Policy, parse_policy
from pcocc_runtime.schema import Problems
from pcocc_runtime.system import identity
from pcocc_runtime.templates import Resolved, Template

if TYPE_CHECKING:
    from pcocc_runtime.freeze import Caller

Error = TypeVar("Error", bound=PcoccError)


@dataclass(frozen=True, slots=True)
class Everything:
    """All that a site's directory says, and all that is wrong with it."""

    site: config.Site
    templates: dict[str, Template]
    policy: Policy
    problems: tuple[ConfigError, ...]
    notes: tuple[str, ...] = ()


def load_all(confdir: str) -> Everything:
    """Return the site's settings, templates and policy, checked against each other."""
    problems: Problems = []
    site = config.load_site(confdir, problems)
    every = config.load_templates(confdir, None, problems)
    check_templates(site, every, problems)
    repos.parse_repos(config.read_tree(f"{confdir}/repos.yaml", problems), True, None, problems)
    tree = config.read_tree(f"{confdir}/policy.yaml", problems)
    policy = parse_policy(tree, every, site.all_sets, problems)
    notes = netfile.find_notes(config.read_tree(f"{confdir}/networks.yaml", []))
    return Everything(site, every, policy, tuple(problems), (*notes, *_find_strangers(site, f"{confdir}/resources.yaml")))


def _find_strangers(site: config.Site, file: str) -> list[str]:
    """Return a note for each user and group that a resource set is for and this host does not know."""
    return [
        f"{file}: {one.name}.{key}: this host knows no {key[:-1]} {name!r}"
        for one in site.all_sets.values()
        for key, exists in (("users", identity.user_exists), ("groups", identity.group_exists))
        for name in getattr(one.access, key)
        if not exists(name)
    ]


def check_templates(site: config.Site, every: Mapping[str, Template], problems: Problems) -> None:
    """Add to `problems` what is wrong between templates, and between templates and resource sets."""
    sets_unread = any(problem.key is None and problem.file.endswith("/resources.yaml") for problem in problems)
    for one in every.values():
        if one.is_image:
            continue
        found: Problems = []
        chosen = templates.resolve_known(every, one.name, site.default_set, found)
        is_whole = not found  # where a parent is not known, only what is said below it is looked at
        if not sets_unread and (is_whole or "resource-set" in chosen.sources):
            _attempt(lambda chosen=chosen: config.find_set(site, chosen), found)  # type: ignore[misc]
        if is_whole:
            _attempt(lambda chosen=chosen: templates.check_sizes(chosen), found)  # type: ignore[misc]
        for error in found:
            add_new(error, problems)


def _attempt(check: Callable[[], object], found: Problems) -> None:
    try:
        check()
    except ConfigError as error:
        schema.add_problem(found, error)


def check_own(site: config.Site, every: Mapping[str, Template], caller: Caller, problems: Problems) -> None:
    """Add to `problems` what a job with one of the caller's own templates would be refused for."""
    from pcocc_runtime import freeze  # only `template check` pays for it

    for one in every.values():
        if one.is_site or one.is_image:
            continue
        chosen = templates.resolve_known(every, one.name, site.default_set, [])  # check_templates tells of its parents
        for error in [*freeze.find_problems(chosen, site, caller), *_find_denials(chosen, site)]:
            add_new(error, problems)


def _find_denials(chosen: Resolved, site: config.Site) -> list[ConfigError]:
    if chosen.values["resource-set"] not in site.all_sets:
        return []
    try:
        with chosen.at("resource-set"):
            admission.ensure_admitted([config.find_set(site, chosen)], identity.read_caller)
    except ConfigError as error:
        return [error]
    return []


def add_new(error: Error, problems: list[Error]) -> None:
    """Add an error, unless it is known already, as that of a parent is."""
    if (error.where, error.message) not in [(known.where, known.message) for known in problems]:
        problems.append(error)
