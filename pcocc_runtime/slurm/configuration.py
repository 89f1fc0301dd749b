"""Slurm's own settings, as `scontrol show config` prints them, and its nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


def parse_configuration(text: str) -> dict[str, str]:
    """Return the settings of slurm.conf and cgroup.conf by their names; what is not set is empty."""
    pairs = re.findall(r"(?m)^(\w[\w\[\]]*)[ \t]*=[ \t]*(.*?)[ \t]*$", text)
    return {name: "" if value in ("(null)", "N/A", "n/a") else value for name, value in pairs}


def parse_licences(text: str) -> dict[str, int]:
    """Return each licence of slurm.conf's Licenses with its number, from a text such as `matlab:10,pkey2000`."""
    pairs = (part.strip().replace("*", ":").partition(":") for part in re.split("[,;]", text) if part.strip())
    return {name: int(count) if count.isdecimal() else 1 for name, _, count in pairs}


def parse_moment(text: str) -> str | None:
    """Return when slurmctld wrote its settings by its own clock, as YYYY-MM-DDTHH:MM:SS in the local time zone."""
    found = re.search(r"(?m)^Configuration data as of (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)$", text)
    return found[1] if found else None


def parse_seconds(settings: Mapping[str, str], name: str) -> int | None:
    """Return a setting that is a number of seconds, as in `30 sec`."""
    found = re.match(r"\d+", settings.get(name, ""))
    return int(found[0]) if found else None


class Place(NamedTuple):
    """A node and a partition that it is in."""

    node: str
    partition: str


def parse_places(text: str) -> list[Place]:
    """Parse the lines `NODE PARTITION` of sinfo(1); each node counts once, with its first partition."""
    found: dict[str, Place] = {}
    for line in text.splitlines():
        node, _, partition = line.strip().partition(" ")
        if node:
            found.setdefault(node, Place(node, partition.strip().rstrip("*")))
    return list(found.values())


def parse_release(text: str) -> tuple[int, int] | None:
    """Return a release's year and month from a text such as `slurm 22.05.8`: a plugin is built for one of them."""
    found = re.search(r"\b(\d\d)\.(\d\d)\b", text)
    return (int(found[1]), int(found[2])) if found else None
