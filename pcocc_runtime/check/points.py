"""The points of `pcocc node check`: for each its name, what it looks at, and who judges what is seen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from pcocc_runtime.check import (
    judge_network,
    judge_node,
    judge_slurm,
    read_devices,
    read_network,
    read_node,
    read_slurm,
)
from pcocc_runtime.check.seen import Grace, Vhost
from pcocc_runtime.documents.node_report import CheckedPoint, NodeReport
from pcocc_runtime.errors import NodeError, PcoccError, one_line
from pcocc_runtime.findings import FAILED, WELL, Finding
from pcocc_runtime.settings.directories import SITE_DIR
from pcocc_runtime.site.site import Site, load_site
from pcocc_runtime.slurm.commands import list_places, read_settings
from pcocc_runtime.slurm.text import parse_configuration, parse_seconds


class Here(NamedTuple):
    """What several points need: the site's settings as far as they are right, and what slurmctld says."""

    site: Site
    shown: str
    settings: Mapping[str, str]
    trouble: str


class Row(NamedTuple):
    """A point: `look` reads and changes nothing, `judge` knows nothing but what was seen."""

    name: str
    look: Callable[[Here], Any]
    judge: Callable[[Any], Iterable[Finding]]


def _judge_controller(trouble: str) -> Iterable[Finding]:
    if trouble:
        yield Finding(FAILED, trouble, "scontrol ping; systemctl status slurmctld on its host")
    else:
        yield Finding(WELL, "slurmctld answers")


ROWS = (
    Row(
        "configuration", lambda _here: read_node.read_configuration(SITE_DIR), judge_node.judge_configuration
    ),
    Row("programs", lambda _here: read_node.read_programs(), judge_node.judge_programs),
    Row("versions", lambda here: read_slurm.read_versions(here.site.qemu), judge_slurm.judge_versions),
    Row("controller", lambda here: here.trouble, _judge_controller),
    Row("plugin", lambda here: read_slurm.read_plugin(here.settings), judge_slurm.judge_plugin),
    Row("cgroups", lambda here: read_slurm.read_cgroups(here.settings), judge_slurm.judge_cgroups),
    Row(
        "kill-wait", lambda here: Grace(here.site.shutdown_grace, parse_seconds(here.settings, "KillWait")),
        judge_slurm.judge_grace,
    ),
    Row("clock", lambda here: read_slurm.read_clock(here.shown), judge_node.judge_clock),
    Row(
        "kvm", lambda here: read_node.read_accelerator(here.site.accel, here.site.qemu), judge_node.judge_kvm
    ),
    Row(
        "accelerator", lambda here: read_node.read_accelerator(here.site.accel, here.site.qemu),
        judge_node.judge_accelerator,
    ),
    Row("tun", lambda _here: read_node.read_device_file("/dev/net/tun"), judge_node.judge_tun),
    Row(
        "vhost-net", lambda here: Vhost(read_node.read_device_file("/dev/vhost-net"), here.site.vhost_net),
        judge_node.judge_vhost,
    ),
    Row("user-namespaces", lambda _here: read_node.read_user_namespaces(), judge_node.judge_user_namespaces),
    Row(
        "names", lambda _here: read_network.read_host_names(tuple(place.node for place in list_places())),
        judge_network.judge_names,
    ),
    Row("walls", lambda _here: read_network.read_walls(), judge_network.judge_walls),
    Row("site-filter", lambda _here: read_network.read_filter(), judge_network.judge_filter),
    Row("scratch", lambda here: read_node.read_scratch(here.site.scratch), judge_node.judge_scratch),
    Row("devices", lambda here: read_devices.read_given_devices(here.site), judge_node.judge_devices),
    Row("cache", lambda here: read_node.read_cache(here.site.image_cache), judge_node.judge_cache),
)


def check_node() -> NodeReport:
    """Look at all points of this node, one after the other."""
    here = _read_here()
    points = tuple(CheckedPoint(row.name, tuple(_look_at(row, here))) for row in ROWS)
    versions = read_slurm.read_versions(here.site.qemu)
    same = {
        "pcocc": versions.runtime, "Slurm": versions.slurm or "?", "QEMU": versions.qemu or "none",
        "/etc/pcocc": read_node.read_configuration(SITE_DIR).digest,
    }  # fmt: skip
    return NodeReport(
        os.environ.get("SLURMD_NODENAME") or os.uname().nodename.partition(".")[0], int(time.time()), same,
        points,
    )


def _read_here() -> Here:
    site = load_site(SITE_DIR, [])  # what is wrong there is a point of its own
    try:
        shown, trouble = read_settings(), ""
    except NodeError as error:
        shown, trouble = "", error.message
    return Here(site, shown, parse_configuration(shown), trouble)


def _look_at(row: Row, here: Here) -> Iterable[Finding]:
    """Return what a point has come to; what cannot be looked at is a failure of that point alone."""
    try:
        found = list(row.judge(row.look(here)))
    except PcoccError as error:
        found = [Finding(FAILED, str(error), error.hint)]
    except OSError as error:
        found = [Finding(FAILED, f"this could not be checked: {error}")]
    return [replace(one, text=one_line(one.text)) for one in found]
