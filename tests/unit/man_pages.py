"""What the man pages say, and which settings the code knows; for the tests that compare the two."""

from collections.abc import Iterator
from pathlib import Path

from pcocc_runtime.errors import ConfigError
from pcocc_runtime.site.check import load_everything

ROOT = Path(__file__).resolve().parents[2]
NETWORKS, TEMPLATES, POLICY = "pcocc-networks.yaml.5", "pcocc-templates.yaml.5", "pcocc-policy.yaml.5"
REPOS = "pcocc-repos.yaml.5"

# where settings stand: the page and its headings, the file, and a text with HERE for one setting at that place
PLACES = {
    "pcocc": ("pcocc.yaml.5", ["SETTINGS"], "pcocc.yaml", "{HERE}"),
    "limits": ("pcocc.yaml.5", ["WHAT USERS MAY SET"], "pcocc.yaml", "{users-may-set: {HERE}}"),
    "devices": ("pcocc.yaml.5", ["DEVICES"], "pcocc.yaml", "{devices: {gpu: {HERE}}}"),
    "image cache": ("pcocc.yaml.5", ["THE IMAGE CACHE"], "pcocc.yaml", "{image-cache: {HERE}}"),
    "network": (NETWORKS, ["NETWORKS"], "networks.yaml", "{n: {HERE}}"),
    "ethernet": (NETWORKS, ["ETHERNET SETTINGS"], "networks.yaml", "{n: {type: ethernet, settings: {HERE}}}"),
    "reverse-nat": (
        NETWORKS, ["Keys of reverse-nat"], "networks.yaml", "{n: {type: ethernet, settings: {reverse-nat: {HERE}}}}",
    ),
    "bridged": (NETWORKS, ["Bridged Ethernet"], "networks.yaml", "{n: {type: bridged-ethernet, settings: {HERE}}}"),
    "vlan": (NETWORKS, ["Keys of a VLAN"], "networks.yaml", "{n: {type: bridged-ethernet, settings: {vlans: [{HERE}]}}}"),
    "infiniband": (NETWORKS, ["InfiniBand"], "networks.yaml", "{n: {type: infiniband, settings: {HERE}}}"),
    "host-infiniband": (NETWORKS, ["Host InfiniBand"], "networks.yaml", "{n: {type: host-infiniband, settings: {HERE}}}"),
    "sriov-ethernet": (NETWORKS, ["Ethernet by SR-IOV"], "networks.yaml", "{n: {type: sriov-ethernet, settings: {HERE}}}"),
    "pci": (NETWORKS, ["PCI"], "networks.yaml", "{n: {type: genericpci, settings: {HERE}}}"),
    "resource set": (NETWORKS, ["RESOURCE SETS"], "resources.yaml", "{r: {HERE}}"),
    "resources": (NETWORKS, ["Keys of resources"], "resources.yaml", "{r: {resources: {HERE}}}"),
    "template": (
        TEMPLATES, ["General", "CPUs and memory", "Disks and directories", "The guest's first boot", "The machine"],
        "templates.yaml", "{t: {HERE}}",
    ),
    "kernel": (TEMPLATES, ["KERNELS"], "templates.yaml", "{t: {kernel: {HERE}}}"),
    "mount": (TEMPLATES, ["MOUNT POINTS"], "templates.yaml", "{t: {mount-points: {m: {HERE}}}}"),
    "drive": (TEMPLATES, ["PERSISTENT DRIVES"], "templates.yaml", "{t: {persistent-drives: {/d: {HERE}}}}"),
    "policy": (POLICY, ["SETTINGS"], "policy.yaml", "{HERE}"),
    "repos": (REPOS, ["SETTINGS"], "repos.yaml", "{HERE}"),
    "repository": (REPOS, ["Keys of a repository"], "repos.yaml", "{repos: [{HERE}]}"),
    "cache": (REPOS, ["Keys of cache"], "repos.yaml", "{cache: {HERE}}"),
    "limit": (POLICY, ["Keys of a limit"], "policy.yaml", "{limits: [{HERE}]}"),
    "template rule": (POLICY, ["Keys of a rule"], "policy.yaml", "{templates: {t: {HERE}}}"),
    "set rule": (POLICY, ["Keys of a rule"], "policy.yaml", "{resource-sets: {r: {HERE}}}"),
}  # fmt: skip


def read_items(page: str, macro: str) -> Iterator[tuple[str, str, str]]:
    """Yield (heading, what follows the macro, the text up to the next such item) of each `.It MACRO` line."""
    heading, item, body = "", None, list[str]()
    for line in [*(ROOT / "docs/man" / page).read_text().splitlines(), ".Sh END"]:
        is_heading = line.startswith((".Sh ", ".Ss "))
        if item is not None and (is_heading or line.startswith(f".It {macro} ")):
            yield heading, item, "\n".join(body)
            item = None
        if is_heading:
            heading = line[4:]
        elif line.startswith(f".It {macro} "):
            item, body = line.removeprefix(f".It {macro} "), []
        else:
            body.append(line)


def read_settings(place: str) -> dict[str, str]:
    """Return what a page says of each setting of a place; settings that share a text have it all."""
    page, headings, _file, _text = PLACES[place]
    found: dict[str, str] = {}
    waiting: list[str] = []
    for heading, name, body in read_items(page, "Cm"):
        if heading in headings:
            assert name not in found and name not in waiting, f"{page} has {name} twice under {headings}"
            waiting.append(name)
            if body:
                found |= dict.fromkeys(waiting, body)
                waiting = []
    return found


def find_problems(directory: Path, place: str, key: str, value: str) -> list[ConfigError]:
    """Return what is wrong with a setting at a place."""
    _page, _headings, file, text = PLACES[place]
    (directory / file).write_text(text.replace("HERE", f"'{key}': {value}"))
    problems = load_everything(str(directory)).problems
    (directory / file).unlink()
    return [one for one in problems if (one.key or "").split(".")[-1] == key]


def known_settings(directory: Path, place: str) -> set[str]:
    """Return the settings that the code knows at a place, from its answer to an unknown one."""
    [problem] = find_problems(directory, place, "?", "0")
    assert problem.hint is not None and problem.hint.startswith("known settings: ")
    return set(problem.hint.removeprefix("known settings: ").split(", "))
