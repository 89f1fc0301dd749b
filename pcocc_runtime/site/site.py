"""The site's and the user's configuration, read from its directories.

`confdir` is /etc/pcocc for whatever runs as root; PCOCC_SYSTEM_CONF_DIR moves it for other users only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pcocc_runtime.networks.kinds import BuildableNetwork, Network
from pcocc_runtime.networks.settings import parse_networks
from pcocc_runtime.settings import checks
from pcocc_runtime.settings.checks import Problems
from pcocc_runtime.settings.directories import SITE_DIR, read_tree
from pcocc_runtime.site.resource_sets import ResourceSet, parse_resources
from pcocc_runtime.site.rules import Rules, parse_rules
from pcocc_runtime.site.settings import PCOCC, SiteSettings

if TYPE_CHECKING:
    from pathlib import PurePath


@dataclass(frozen=True, slots=True)
class Site(SiteSettings):
    """What the site's admin has set; `networks` are those the nodes can build."""

    networks: dict[str, BuildableNetwork] = field(default_factory=dict)
    resource_sets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    all_networks: dict[str, Network] = field(default_factory=dict)
    all_sets: dict[str, ResourceSet] = field(default_factory=dict)

    @property
    def default_set(self) -> str | None:
        """Return the name of the resource set for templates that name none."""
        return next((name for name, one in self.all_sets.items() if one.default), None)


def read_site(confdir: str | PurePath = SITE_DIR) -> Site:
    """Return the site's settings; raises the first ConfigError found."""
    problems: Problems = []
    site = load_site(confdir, problems)
    if problems:
        raise problems[0]
    return site


def read_rules(confdir: str | PurePath) -> Rules:
    """Return the rules of a site's policy.yaml; raises the first ConfigError found."""
    problems: Problems = []
    rules = parse_rules(read_tree(f"{confdir}/policy.yaml", problems), problems)
    if problems:
        raise problems[0]
    return rules


def load_site(confdir: str | PurePath, problems: Problems) -> Site:
    """Return the site's settings as far as they are right; what is wrong is added to `problems`."""
    tree = read_tree(f"{confdir}/pcocc.yaml", problems)
    values = checks.read_mapping(tree, PCOCC, problems)
    wrong = not isinstance(tree.value, dict) or ("devices" in tree.value and "devices" not in values)
    every, broken = _load_networks(f"{confdir}/networks.yaml", problems)
    pools = None if wrong else values.get("devices", {})
    sets = parse_resources(read_tree(f"{confdir}/resources.yaml", problems), every, problems, broken, pools)
    return Site(
        **checks.as_fields(values),
        networks={name: one for name, one in every.items() if isinstance(one, BuildableNetwork)},
        resource_sets={name: one.networks for name, one in sets.items()},
        all_networks=every,
        all_sets=sets,
    )


def _load_networks(path: str, problems: Problems) -> tuple[dict[str, Network], set[str] | None]:
    """Return the networks that are right, and the names of the others, None if the file cannot be read at all."""
    before = len(problems)
    tree = read_tree(path, problems)
    unread = len(problems) > before or not isinstance(tree.value, dict)
    found = parse_networks(tree, problems)
    return found, None if unread else set(tree.value) - set(found)
