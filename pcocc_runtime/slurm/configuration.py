"""Slurm's own settings, as `scontrol show config` prints them or gres.conf has them, and its nodes."""

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


class GresLine(NamedTuple):
    """A line of gres.conf: its number, the GRES, and whether it names device files."""

    number: int
    name: str
    file: bool


def parse_gres(text: str) -> list[GresLine]:
    """Return the lines of a gres.conf that name a GRES; one may go on behind a backslash (gres.conf(5))."""
    found, number, held = list[GresLine](), 1, ""
    for place, line in enumerate(text.splitlines(), 1):
        number = number if held else place
        held += line.partition("#")[0]
        if held.endswith("\\"):
            held = f"{held[:-1]} "
            continue
        words = {key.lower(): value for key, value in re.findall(r"(\w+)\s*=\s*(\S+)", held)}
        if "name" in words:
            found.append(GresLine(number, words["name"], "file" in words or "multiplefiles" in words))
        held = ""
    return found


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
