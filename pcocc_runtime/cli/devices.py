"""`pcocc node devices`: which of the devices that the site names a node has, and the node's lines of gres.conf."""

from __future__ import annotations

import argparse
import os
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path

from pcocc_runtime.cli.common import complain, confdir
from pcocc_runtime.errors import ConfigError, NodeError
from pcocc_runtime.networks.binding import ensure_bound
from pcocc_runtime.networks.functions import (
    Function,
    PhysicalFunction,
    Stock,
    device_node,
    find_fault,
    find_twice,
    parse_virtual,
    render_gres,
)
from pcocc_runtime.networks.host_functions import read_known, read_stocks
from pcocc_runtime.networks.kinds import FunctionNetwork, GenericPci
from pcocc_runtime.networks.partitions import render_guid
from pcocc_runtime.site.site import read_site
from pcocc_runtime.system import process
from pcocc_runtime.tables import columns

SYS = Path("/sys")
_HEADS = ("DEVICE", "GRES", "FUNCTION", "ADDRESS", "DRIVER", "GROUP", "NUMA", "FILE", "USER", "GUID OR MAC")


def show_devices(arguments: argparse.Namespace) -> int:
    """Print this node's functions for VMs and its lines of gres.conf; complain about those that VMs cannot get."""
    site, here = read_site(confdir()), os.uname().nodename
    networks = [one for one in site.all_networks.values() if isinstance(one, FunctionNetwork)]
    if not networks and not site.devices:
        message, hint = "the site names no devices for VMs", "see pcocc-networks.yaml(5), and devices in pcocc.yaml(5)"
        return complain([ConfigError(message, confdir(), hint=hint)])
    virtual = [one for one in networks if not isinstance(one, GenericPci)]
    devices, faults = read_known(virtual, SYS)
    stocks = read_stocks(networks, site.devices.values(), devices, SYS)
    if arguments.bind:
        faults += ensure_bound(stocks, SYS)
        devices = read_known(virtual, SYS)[0]
        stocks = read_stocks(networks, site.devices.values(), devices, SYS)
    sys.stdout.write(columns([_HEADS, *(row for stock in stocks for row in _rows(stock, devices.get(stock.name)))]))
    found = [find_twice(stocks, here)]
    found += [find_fault(one, stock.name, here) for stock in stocks for one in stock.functions]
    faults += [fault for fault in found if fault]
    if not faults:
        sys.stdout.write("\ngres.conf:\n" + "".join(f"{line}\n" for line in render_gres(stocks)))
    return complain(faults)


def _rows(stock: Stock, device: PhysicalFunction | None) -> Iterator[tuple[str, ...]]:
    """Yield a line for a device of networks itself, which is no VM's, and for each function that VMs may have."""
    names: dict[int, str] = {}
    if device and device.own:
        names = _read_names(device.interface)
        guid = render_guid(device.guid) if device.guid else "-"
        yield (stock.name, "-", "PF", *_describe(device.own), "-", "-", guid)
    for one in stock.functions:
        path = device_node(one)
        yield (
            stock.name, stock.gres, str(one.number), *_describe(one), path, _user_of(path), names.get(one.number, "-"),
        )  # fmt: skip


def _describe(one: Function) -> tuple[str, ...]:
    driver = (one.driver or "-") if one.answers else "lost"
    return (one.address, driver, one.group, "-" if one.numa < 0 else str(one.numa))


def _read_names(interface: str) -> dict[int, str]:
    """Return what functions of a device have of GUIDs or addresses, as far as ip(8) tells."""
    try:
        return parse_virtual(process.run(["ip", "-json", "link", "show", "dev", interface], hint=""))
    except NodeError:
        return {}


def _user_of(path: str) -> str:
    """Return the user who may open a function, whose job has it; '-' when it is free or has no file."""
    try:
        uid = os.stat(path).st_uid
    except FileNotFoundError:
        return "-"
    try:
        return pwd.getpwuid(uid).pw_name if uid else "-"
    except KeyError:
        return str(uid)
