"""Templates by name: which file defines each, what it inherits, and its settings with all that is inherited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pcocc_runtime.errors import ConfigError, PcoccError, RequestError
from pcocc_runtime.qemu.disks import most_disks
from pcocc_runtime.settings import checks
from pcocc_runtime.settings.checks import Problems
from pcocc_runtime.settings.tree import Node
from pcocc_runtime.templates.fill import has_rank
from pcocc_runtime.templates.settings import SETTINGS, default_values, yaml_table
from pcocc_runtime.templates.template import Resolved, Template


def parse_templates(tree: Node, is_site: bool, problems: Problems) -> dict[str, Template]:
    """Return the templates of one file by name."""
    found: dict[str, Template] = {}
    table = yaml_table()
    for name, node in checks.read_named(tree, "template", problems).items():
        if node.value is None:
            node = Node({}, node.file, node.line, node.path)
        found[name] = Template(name, checks.read_mapping(node, table, problems), node, is_site)
    return found


def merge(files: Sequence[Mapping[str, Template]], problems: Problems) -> dict[str, Template]:
    """Return the templates of all files, the site's first; a name that comes twice is a problem."""
    merged: dict[str, Template] = {}
    for templates in files:
        for name, one in templates.items():
            first = merged.setdefault(name, one)
            if first is not one:
                problems.append(_taken(one, first))
    return merged


def _taken(second: Template, first: Template) -> ConfigError:
    owner = "the site has" if first.is_site and not second.is_site else "there is"
    return second.node.error(
        f"{owner} a template of this name in {first.node.file}:{first.node.line}",
        f"give yours another name, and let it have 'inherits: {first.name}' if it should extend that one",
    )


def with_images(templates: Mapping[str, Template], images: Mapping[str, str]) -> dict[str, Template]:
    """Return the templates, and one for each image whose name no template has; `images` maps names to repositories."""
    made = {
        name: Template(name, {"image": name}, Node({}, f"image {repository}:{name}", 0, ""), False, True)
        for name, repository in images.items()
        if name not in templates and checks.is_name(name)
    }
    return {**templates, **made}


def resolve(templates: Mapping[str, Template], name: str, default_set: str | None = None) -> Resolved:
    """Return a template with what it inherits; RequestError when it is unknown, ConfigError for wrong parents."""
    ensure_known(templates, name)
    problems: Problems = []
    found = resolve_known(templates, name, default_set, problems)
    checks.raise_problems(problems)
    return found


def resolve_known(
    templates: Mapping[str, Template], name: str, default_set: str | None, problems: Problems
) -> Resolved:
    """Return a template with what it inherits, as far as its parents are known."""
    defaults = default_values(default_set)
    values = dict(defaults)
    sources: dict[str, Template] = {}
    for one in reversed(_lineage(templates, templates[name], problems)):
        for key, value in one.values.items():
            if one.name == name or SETTINGS[key].inherited:
                values[key] = defaults[key] if value is None else value
                sources[key] = one
    if "cpus" not in sources and not values["full-node"]:  # the original has no such setting
        values["cpus"] = max(values["cpus"], values["emulator-cores"] + 1)
    return Resolved(templates[name], values, sources)


def needs_rank(chosen: Resolved) -> bool:
    """Tell whether VMs of a template differ by their rank."""
    return any(has_rank(chosen.values[row.name]) for row in SETTINGS.values() if row.is_filled)


def find_own_problems(problems: Sequence[ConfigError], name: str, every: Mapping[str, Template]) -> list[ConfigError]:
    """Return the problems of a template, of those it inherits from, and of whole files."""
    names: list[str] = []
    while name in every and name not in names:
        names.append(name)
        name = every[name].values.get("inherits") or ""
    return [
        one for one in problems if one.key is None or any(f"{one.key}.".startswith(f"{n}.") for n in names)
    ]


def check_sizes(chosen: Resolved) -> None:
    """Raise ConfigError when a template asks for more than its own CPUs or its disk controller have."""
    values, problems = chosen.values, list[ConfigError]()
    cores, cpus = values["emulator-cores"], values["cpus"]
    if cores and cores >= cpus and not values["full-node"]:
        message = f"with {cores} of {cpus} CPUs kept for QEMU, none is left for the guest"
        problems.append(chosen.error("emulator-cores", message, f"set cpus to {cores + 1} or more"))
    model, most = values["disk-model"], most_disks(values["disk-model"], values["machine-type"])
    if len(values["persistent-drives"]) >= most:
        message = f"a VM with disk-model {model} can have {most} disks, including its boot disk"
        hint = "leave some out, or choose disk-model virtio"
        problems.append(chosen.error("persistent-drives", message, hint))
    checks.raise_problems(problems)


def _lineage(templates: Mapping[str, Template], one: Template, problems: Problems) -> list[Template]:
    """Return the template, its parent and so on; a wrong parent ends the line and is added to `problems`."""
    line, names = [one], {one.name}
    while (parent := line[-1].values.get("inherits")) is not None:
        problem = _find_obstacle(templates, line, parent, parent in names)
        if problem:
            problems.append(problem)
            break
        line.append(templates[parent])
        names.add(parent)
    return line


def _find_obstacle(
    templates: Mapping[str, Template], line: list[Template], parent: str, known: bool
) -> ConfigError | None:
    """Return why a line's last template cannot inherit from `parent`, which is `known` when the line has it already."""
    place: Node = line[-1].node.value["inherits"]
    if parent not in templates:
        return place.error(f"there is no template {parent!r} to inherit from", known_names(templates))
    if templates[parent].is_image:
        return place.error(f"{parent!r} is an image, not a template", f"write image: {parent}")
    if known:
        return _circle(line[[one.name for one in line].index(parent) :])
    if line[-1].is_site and not templates[parent].is_site:
        return place.error(f"a template of the site cannot inherit from {parent!r}, a user's template")
    return None


def _circle(members: list[Template]) -> ConfigError:
    """Return the error about templates that inherit in a circle: the same one, whichever of them is asked for."""
    first = members.index(min(members, key=lambda one: one.name))
    members = members[first:] + members[:first]
    names = " -> ".join(one.name for one in [*members, members[0]])
    place: Node = members[-1].node.value["inherits"]
    return place.error(f"templates inherit from each other in a circle: {names}")


def ensure_known(templates: Mapping[str, Template], name: str, unread: Sequence[PcoccError] = ()) -> None:
    """Raise RequestError when there is no such template; `unread` says why images may be missing."""
    if name not in templates:
        missed = "".join(f"images may be missing: {one}; " for one in unread[:1])
        raise RequestError(f"there is no template {name!r}", missed + known_names(templates))


def needs_images(templates: Mapping[str, Template], name: str) -> bool:
    """Tell whether a template, or one that it inherits from, is not among these: then it may be an image."""
    seen = set()
    while name in templates and name not in seen:
        seen.add(name)
        name = templates[name].values.get("inherits") or name
    return name not in templates


def known_names(templates: Mapping[str, Template]) -> str:
    """Return the hint that lists the templates there are."""
    names = sorted(filter(checks.is_template_name, templates))
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"templates: {', '.join(names[:20]) or 'none is defined'}{more}; see 'pcocc template list'"
