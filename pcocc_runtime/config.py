"""The site's and the user's configuration, read from its directories.

`confdir` is /etc/pcocc for whatever runs as root; only unprivileged commands let PCOCC_SYSTEM_CONF_DIR move it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pcocc_runtime import netfile, resources, schema, templates, yamlfile
from pcocc_runtime.errors import ConfigError
from pcocc_runtime.limits import Limits, parse_limits
from pcocc_runtime.networks import BuildableNetwork, Network
from pcocc_runtime.resources import ResourceSet
from pcocc_runtime.schema import Problems, Setting
from pcocc_runtime.system import confdir as files
from pcocc_runtime.templates import Template
from pcocc_runtime.yamlfile import Node

if TYPE_CHECKING:
    from pathlib import PurePath

SITE_DIR = "/etc/pcocc"


@dataclass(frozen=True, slots=True)
class ImageCache:
    """Each node's own copies of layers, and how many bytes they may take."""

    size: int
    directory: str = "/var/cache/pcocc"


@dataclass(frozen=True, slots=True)
class Site:
    """What the site's admin has set; `networks` are those the nodes can build."""

    accel: str = "auto"
    qemu: str = "/usr/bin/qemu-system-x86_64"
    scratch: str = "/var/lib/pcocc/scratch"
    max_vms: int = 1024
    boot_timeout: int = 300
    shutdown_grace: int = 20  # below the default of Slurm's KillWait
    image_cache: ImageCache | None = None
    users_may_set: Limits = field(default_factory=Limits)
    networks: dict[str, BuildableNetwork] = field(default_factory=dict)
    resource_sets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    all_networks: dict[str, Network] = field(default_factory=dict)
    all_sets: dict[str, ResourceSet] = field(default_factory=dict)

    @property
    def default_set(self) -> str | None:
        """Return the name of the resource set for templates that name none."""
        return next((name for name, one in self.all_sets.items() if one.default), None)


def _image_cache(node: Node) -> ImageCache:
    return ImageCache(**schema.record(_IMAGE_CACHE)(node))


_IMAGE_CACHE = (Setting("size", schema.space, True), Setting("directory", schema.absolute_path))
_PCOCC = (
    Setting("accel", schema.choice("auto", "kvm", "tcg")),
    Setting("qemu", schema.absolute_path),
    Setting("scratch", schema.absolute_path),
    Setting("max-vms", schema.integer(1, 65536)),
    Setting("boot-timeout", schema.integer(1, 86400)),
    Setting("shutdown-grace", schema.integer(0, 3600)),
    Setting("image-cache", _image_cache),
    Setting("users-may-set", parse_limits),
)


def read_site(confdir: str | PurePath = SITE_DIR) -> Site:
    """Return the site's settings; raises the first ConfigError found."""
    problems: Problems = []
    site = load_site(confdir, problems)
    if problems:
        raise problems[0]
    return site


def read_image_cache(confdir: str | PurePath = SITE_DIR) -> ImageCache | None:
    """Return what pcocc.yaml says of the nodes' image caches, None when they are off; raises the first ConfigError found."""
    problems: Problems = []
    values = schema.read_mapping(read_tree(f"{confdir}/pcocc.yaml", problems), _PCOCC, problems)
    schema.raise_problems(problems)
    return values.get("image-cache")


def load_site(confdir: str | PurePath, problems: Problems) -> Site:
    """Return the site's settings as far as they are right; what is wrong is added to `problems`."""
    values: dict[str, Any] = schema.read_mapping(read_tree(f"{confdir}/pcocc.yaml", problems), _PCOCC, problems)
    every, broken = _load_networks(f"{confdir}/networks.yaml", problems)
    sets = resources.parse_resources(read_tree(f"{confdir}/resources.yaml", problems), every, problems, broken)
    return Site(
        **{key.replace("-", "_"): value for key, value in values.items()},
        networks={name: one for name, one in every.items() if isinstance(one, BuildableNetwork)},
        resource_sets={name: one.networks for name, one in sets.items() if not resources.find_obstacle(one, every)},
        all_networks=every,
        all_sets=sets,
    )


def _load_networks(path: str, problems: Problems) -> tuple[dict[str, Network], set[str] | None]:
    """Return the networks that are right, and the names of those that are not, None when the file cannot be read at all."""
    before = len(problems)
    tree = read_tree(path, problems)
    unread = len(problems) > before or not isinstance(tree.value, dict)
    found = netfile.parse_networks(tree, problems)
    return found, None if unread else set(tree.value) - set(found)


def load_templates(confdir: str | PurePath, user_dir: str | None, problems: Problems) -> dict[str, Template]:
    """Return the site's and the user's templates by name."""
    found = []
    for directory, is_site in ((confdir, True), (user_dir, False)):
        if directory:
            for path in (f"{directory}/templates.yaml", *_drop_ins(f"{directory}/templates.d", problems)):
                found.append(templates.parse_templates(read_tree(path, problems), is_site, problems))
    return templates.merge(found, problems)


def find_set(site: Site, chosen: templates.Resolved) -> ResourceSet:
    """Return the resource set of a template; ConfigError when it has none or names one that does not exist."""
    name = chosen.values["resource-set"]
    if name is None:
        raise chosen.error("resource-set", "resource-set is missing, and no resource set of the site is the default")
    if name not in site.all_sets:
        hint = f"resource sets of this site: {', '.join(sorted(site.all_sets)) or 'none'}"
        raise chosen.error("resource-set", f"there is no resource set {name!r}", hint)
    return site.all_sets[name]


def site_dir(environ: Mapping[str, str], uid: int) -> str:
    """Return the site's directory for a command run by `uid`; root is never led elsewhere by its environment."""
    named = environ.get("PCOCC_SYSTEM_CONF_DIR") if uid else None
    return files.ensure_directory(named, "PCOCC_SYSTEM_CONF_DIR") if named else SITE_DIR


def user_dir(environ: Mapping[str, str]) -> str | None:
    """Return the directory of the user's own configuration."""
    named, home = environ.get("PCOCC_USER_CONF_DIR"), environ.get("HOME")
    if named:
        return files.ensure_directory(named, "PCOCC_USER_CONF_DIR")
    return f"{home}/.pcocc" if home else None


def ensure_trusted(confdir: str | PurePath = SITE_DIR) -> None:
    """Raise ConfigError unless only root can have written the site's configuration."""
    files.ensure_root_only(str(confdir))


def read_tree(path: str, problems: Problems) -> Node:
    """Return the tree of a YAML file, an empty one when there is no file or it is wrong."""
    try:
        text = files.read_file(path)
        return yamlfile.parse(text or "", path, problems)
    except ConfigError as error:
        problems.append(error)
        return Node({}, path, 1, "")


def _drop_ins(directory: str, problems: Problems) -> list[str]:
    try:
        return files.list_yaml(directory)
    except ConfigError as error:
        problems.append(error)
        return []
