"""What is seen of Slurm on a node: the plugin, slurmd, slurmctld's settings and its clock."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator, Mapping
from glob import glob
from pathlib import Path, PurePath

from pcocc_runtime import __version__
from pcocc_runtime.check import seen, texts
from pcocc_runtime.check.elf import SharedObject
from pcocc_runtime.errors import NodeError
from pcocc_runtime.slurm.commands import read_slurmd_version
from pcocc_runtime.slurm.text import parse_moment, parse_release
from pcocc_runtime.system import installed, process

PLUGIN = "pcocc.so"
_TIME_ERROR = 5  # what adjtimex(2) returns where nothing has set the clock for a while


def read_plugin(settings: Mapping[str, str]) -> seen.Plugin:
    """Return what is to be known of the plugin."""
    config = settings.get("PlugStackConfig") or str(
        PurePath(settings.get("SLURM_CONF") or "/etc/slurm/slurm.conf").parent / "plugstack.conf"
    )
    named = next((path for path in _list_plugins(config) if PurePath(path).name == PLUGIN), None)
    folders = settings.get("PluginDir", "").split(":")
    path = next(
        (found for folder in folders if named and os.path.exists(found := str(PurePath(folder, named)))),
        named,
    )
    built, version, trouble = _read_plugin_file(path) if path else (None, None, "")
    loaded, replaced = _look_into_slurmd()
    return seen.Plugin(
        config=config, named=path, expected=_find_expected(folders), runtime=__version__, built=built,
        version=version, slurmd=parse_release(read_slurmd_version() or ""), loaded=loaded, replaced=replaced,
        trouble=trouble,
    )  # fmt: skip


def _list_plugins(config: str) -> Iterator[str]:
    """Yield the plugins that a plugstack.conf names, and what it includes."""
    try:
        lines = texts.parse_plugstack(Path(config).read_text(errors="replace"))
    except OSError:
        return
    for kind, word in lines:
        if kind == "plugin":
            yield word
        else:
            for path in sorted(glob(str(PurePath(config).parent / word))):
                yield from _list_plugins(path) if path != config else ()


def _find_expected(folders: list[str]) -> str:
    """Return where this installation's plugin is, or should be."""
    beside = PurePath(installed.LIBEXEC).parents[1] / "lib/slurm"
    places = [PurePath(folder, PLUGIN) for folder in (str(beside), *folders) if folder]
    return str(next((place for place in places if os.path.exists(place)), places[0]))


def _read_plugin_file(path: str) -> tuple[tuple[int, int] | None, str | None, str]:
    """Return the release of Slurm that a plugin is built for, its version of pcocc, and why it cannot be read."""
    try:
        plugin = SharedObject(Path(path).read_bytes())
        value, version = plugin.read_value("plugin_version"), plugin.read_value("pcocc_version")
    except (OSError, ValueError) as error:
        return None, None, str(error) if isinstance(error, OSError) else f"{path}: {error}"
    if value is None or len(value) != 4:
        return None, None, f"{path}: it is no plugin of Slurm's"
    number = int.from_bytes(value, sys.byteorder)  # SLURM_VERSION_NUMBER of slurm.h
    text = None if version is None else version.partition(b"\0")[0].decode(errors="replace")
    return (number >> 16 & 255, number >> 8 & 255), text, ""


def _look_into_slurmd() -> tuple[bool, bool]:
    """Tell whether this host's slurmd has the plugin open, and another file than is there now."""
    host = os.readlink("/proc/self/ns/uts")
    for entry in os.scandir("/proc"):
        try:
            if not entry.name.isdigit() or Path(entry.path, "comm").read_text() != "slurmd\n":
                continue
            if os.readlink(f"{entry.path}/ns/uts") != host or entry.stat().st_uid != 0:
                continue
            mapped = texts.parse_mapped(Path(entry.path, "maps").read_text(), PLUGIN)
        except OSError:
            continue
        if mapped:
            return True, any(
                not os.path.exists(path) or os.stat(path).st_ino != inode for inode, path in mapped
            )
    return False, False


def read_versions(qemu: str) -> seen.Versions:
    """Return the versions of what runs VMs here."""
    slurm = (read_slurmd_version() or "").removeprefix("slurm ")
    try:
        text = process.run([qemu, "--version"]).splitlines()[0]
    except (NodeError, IndexError) as error:
        return seen.Versions(__version__, slurm, "", str(error) or f"{qemu} says nothing of its version")
    return seen.Versions(__version__, slurm, text.removeprefix("QEMU emulator version ").partition(" ")[0])


def read_cgroups(settings: Mapping[str, str]) -> seen.Cgroups:
    """Return how Slurm confines tasks, and what is mounted for that."""
    mountinfo, own = Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()
    return seen.Cgroups(
        settings, texts.parse_hierarchies(mountinfo), texts.parse_old_groups(own), texts.is_unified(mountinfo)
    )


def read_clock(shown: str) -> seen.Clock:
    """Return what is to be known of the clock; `shown` is what `scontrol show config` has just said."""
    moment = parse_moment(shown)
    theirs = time.mktime(time.strptime(moment, "%Y-%m-%dT%H:%M:%S")) if moment else None
    # asks only: struct timex begins with modes = 0
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    return seen.Clock(None if theirs is None else time.time() - theirs, state not in (-1, _TIME_ERROR))
