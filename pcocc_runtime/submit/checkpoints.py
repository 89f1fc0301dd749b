"""`--pcocc-checkpoint=DIR[,every=TIME][,at-end[=TIME]]`: where and when a cluster is stored without being told to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pcocc_runtime.documents.cluster import Checkpoints, Cluster
from pcocc_runtime.errors import RequestError
from pcocc_runtime.networks.kinds import EthernetNetwork, Network
from pcocc_runtime.site.resource_sets import ResourceSet

_FORM = "write --pcocc-checkpoint=DIR[,every=TIME][,at-end[=TIME]], with times as sbatch --time takes them"
_LIKELY = re.compile(r"|(every|at[-_ ]?(end|start|once)|hold|stop)[^/]*", re.IGNORECASE)  # hardly part of a path
_LEAST = 10  # seconds: each is a step of Slurm, and stops the VMs
_MOST = 10 * 366 * 86400


def parse_checkpoints(text: str) -> Checkpoints:
    """Return what a value asks for, its directory as typed; words are taken from its end: a path may have commas."""
    directory, words = text, dict[str, str]()
    while match := re.fullmatch(r"(.*),(every|at-end)(?:=([^,=/]*))?", directory, re.DOTALL):
        directory, word, value = match[1], match[2], match[3]
        if word in words:
            raise RequestError(f"--pcocc-checkpoint={text} has {word!r} twice", _FORM)
        words[word] = "" if value is None else value
        if (word == "every" and value is None) or value == "":
            raise RequestError(f"--pcocc-checkpoint={text} says no time after {word!r}", _FORM)
    _path, comma, word = directory.rpartition(",")
    if comma and _LIKELY.fullmatch(word):
        raise RequestError(f"--pcocc-checkpoint={text} has the unknown option {word!r}", _FORM)
    if not directory:
        raise RequestError(f"--pcocc-checkpoint={text} names no directory", _FORM)
    every = _parse_seconds(words["every"], text) if "every" in words else 0
    before = _parse_seconds(words["at-end"], text) if words.get("at-end") else 0
    return Checkpoints(directory, every, "at-end" in words or not every, before)


def _parse_seconds(time: str, text: str) -> int:
    """Return the seconds of a time as Slurm takes it: MIN, MIN:SEC, H:MIN:SEC, DAYS-H, DAYS-H:MIN, DAYS-H:MIN:SEC."""
    match = re.fullmatch(r"(?:([0-9]{1,5})-)?([0-9]{1,9})(?::([0-9]{1,5}))?(?::([0-9]{1,5}))?", time, re.ASCII)
    if not match:
        raise RequestError(f"{time!r} in --pcocc-checkpoint={text} is not a time", _FORM)
    days, *numbers = (None if one is None else int(one) for one in match.groups())
    found = [one for one in numbers if one is not None]
    if days is None and len(found) < 3:
        found.insert(0, 0)  # the first is minutes
    hours, minutes, seconds, *_ = [*found, 0, 0]
    whole = (days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds
    if not _LEAST <= whole <= _MOST:
        raise RequestError(f"{time!r} in --pcocc-checkpoint={text} is not between {_LEAST} s and ten years", _FORM)
    return whole


def ensure_storable(cluster: Cluster, sets: Sequence[ResourceSet], networks: Mapping[str, Network]) -> None:
    """Raise RequestError for what VMs cannot be stored with, as far as it is known before they boot."""
    hint = "leave --pcocc-checkpoint out, or use a template without that"
    for group in cluster.groups:
        mount = next((mount for mount in group.mounts if mount.type == "virtiofs"), None)
        if mount is not None:
            message = f"VMs of template {group.template!r} have {mount.path} over virtiofs, so they cannot be stored"
            raise RequestError(message, "mount it with type=9p, and unmount it in the VMs before each checkpoint")
        if group.devices:
            raise RequestError(f"VMs of template {group.template!r} have devices, and cannot be stored with them", hint)
    for one in sets:
        if one.devices:
            raise RequestError(f"VMs of resource set {one.name!r} have devices, and cannot be stored with them", hint)
        for name in one.networks:
            if not isinstance(networks[name], EthernetNetwork):
                message = f"VMs on network {name!r}, of type {networks[name].type}, cannot be stored"
                raise RequestError(message, "use a template with private Ethernet networks only")
