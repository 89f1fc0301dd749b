"""All of a site's configuration at once, and all that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pcocc_runtime.errors import ConfigError, PcoccError
from pcocc_runtime.images import references
from pcocc_runtime.networks.settings import find_network_notes
from pcocc_runtime.settings import checks, directories
from pcocc_runtime.settings.checks import Problems
from pcocc_runtime.settings.numbers import find_number_notes
from pcocc_runtime.site.limits import check_limits
from pcocc_runtime.site.policy import Policy, parse_policy
from pcocc_runtime.site.resource_sets import ResourceSet, no_device
from pcocc_runtime.site.site import Site, load_site
from pcocc_runtime.system import accounts
from pcocc_runtime.templates import inherit
from pcocc_runtime.templates.load import load_templates
from pcocc_runtime.templates.settings import limit_keys
from pcocc_runtime.templates.template import Resolved, Template


def find_set(site: Site, chosen: Resolved) -> ResourceSet:
    """Return the resource set of a template; ConfigError when it has none, or there is none of that name."""
    name = chosen.values["resource-set"]
    if name is None:
        message = "resource-set is missing, and no resource set of the site is the default"
        raise chosen.error("resource-set", message)
    if name not in site.all_sets:
        hint = f"resource sets of this site: {', '.join(sorted(site.all_sets)) or 'none'}"
        raise chosen.error("resource-set", f"there is no resource set {name!r}", hint)
    return site.all_sets[name]


def ensure_devices(site: Site, chosen: Resolved) -> None:
    """Raise ConfigError when a template names a device that the site does not have."""
    for place, (name, _count) in enumerate(chosen.values["devices"]):
        if name not in site.devices:
            item = name if isinstance(chosen.place("devices").value, dict) else place
            raise chosen.error("devices", *no_device(name, site.devices), item)


_FILES = ("pcocc", "networks", "resources", "repos", "policy")  # templates have trees of their own
Error = TypeVar("Error", bound=PcoccError)


@dataclass(frozen=True, slots=True)
class Everything:
    """All that a site's directory says, and all that is wrong with it."""

    site: Site
    templates: dict[str, Template]
    policy: Policy
    problems: tuple[ConfigError, ...]
    notes: tuple[str, ...] = ()


def load_site_and_templates(
    confdir: str, user_dir: str | None, problems: Problems
) -> tuple[Site, dict[str, Template]]:
    """Return the site's settings, and the templates of the site and the user, as far as they are right."""
    site = load_site(confdir, problems)
    check_limits(site.users_may_set, limit_keys(), problems)
    return site, load_templates(confdir, user_dir, problems)


def load_everything(confdir: str) -> Everything:
    """Return the site's settings, templates and policy, checked against each other."""
    problems: Problems = []
    site, every = load_site_and_templates(confdir, None, problems)
    check_templates(site, every, problems)
    references.parse_repos(directories.read_tree(f"{confdir}/repos.yaml", problems), True, None, problems)
    tree = directories.read_tree(f"{confdir}/policy.yaml", problems)
    policy = parse_policy(tree, every, site.all_sets, problems)
    notes = [
        *directories.find_misnamed(confdir),
        *find_network_notes(directories.read_tree(f"{confdir}/networks.yaml", [])),
        *_find_strangers(site, f"{confdir}/resources.yaml"),
        *(
            note
            for name in _FILES
            for note in find_number_notes(directories.read_tree(f"{confdir}/{name}.yaml", []))
        ),
        *(note for one in every.values() for note in find_number_notes(one.node)),
    ]
    return Everything(site, every, policy, tuple(problems), tuple(notes))


def _find_strangers(site: Site, file: str) -> list[str]:
    """Return a note for each user and group in a resource set's lists that this host does not know."""
    return [
        f"{file}: {one.name}.{key}: there is no {key[:-1]} {name!r} on this host"
        for one in site.all_sets.values()
        for key, exists in (("users", accounts.user_exists), ("groups", accounts.group_exists))
        for name in getattr(one.access, key)
        if not exists(name)
    ]


def check_templates(site: Site, every: Mapping[str, Template], problems: Problems) -> None:
    """Add to `problems` what is wrong between templates, and between templates and resource sets."""
    sets_unread = any(one.key is None and one.file.endswith("/resources.yaml") for one in problems)
    for one in every.values():
        if one.is_image:
            continue
        found: Problems = []
        chosen = inherit.resolve_known(every, one.name, site.default_set, found)
        is_whole = not found  # without an unknown parent's settings, only those that are known can be checked
        if not sets_unread and (is_whole or "resource-set" in chosen.sources):
            attempt(lambda chosen=chosen: find_set(site, chosen), found)  # type: ignore[misc]
        if is_whole:
            attempt(lambda chosen=chosen: inherit.check_sizes(chosen), found)  # type: ignore[misc]
            attempt(lambda chosen=chosen: ensure_devices(site, chosen), found)  # type: ignore[misc]
        for error in found:
            add_new(error, problems)


def attempt(check: Callable[[], object], found: Problems) -> None:
    """Call a check, and add what it finds wrong."""
    try:
        check()
    except ConfigError as error:
        checks.add_problem(found, error)


def add_new(error: Error, problems: list[Error]) -> None:
    """Add an error, unless it is there already: each child of a template finds its parent's errors again."""
    if (error.where, error.message) not in [(known.where, known.message) for known in problems]:
        problems.append(error)
