"""`pcocc node devices`: which of the devices that the site names a node has, and the node's lines of gres.conf."""

from __future__ import annotations

import argparse
import os
import pwd
import sys
from collections.abc import Sequence
from pathlib import Path

from pcocc_runtime.cli.common import complain, confdir
from pcocc_runtime.errors import ConfigError, PcoccError
from pcocc_runtime.networks.binding import ensure_bound
from pcocc_runtime.networks.functions import (
    Function,
    Stock,
    device_node,
    find_fault,
    find_twice,
    render_gres,
)
from pcocc_runtime.networks.host_functions import read_devices, read_stocks
from pcocc_runtime.networks.kinds import FunctionNetwork, GenericPci
from pcocc_runtime.networks.partitions import Hca
from pcocc_runtime.site.site import Site, read_site
from pcocc_runtime.tables import columns

SYS = Path("/sys")
_HEADS = ("DEVICE", "GRES", "FUNCTION", "ADDRESS", "DRIVER", "NUMA", "FILE", "USER")


def show_devices(arguments: argparse.Namespace) -> int:
    """Print this node's functions for VMs and its lines of gres.conf; complain about those that VMs cannot get."""
    site, here = read_site(confdir()), os.uname().nodename
    networks = [one for one in site.all_networks.values() if isinstance(one, FunctionNetwork)]
    if not networks and not site.devices:
        message, hint = "the site names no devices for VMs", "see pcocc-networks.yaml(5), and devices in pcocc.yaml(5)"
        return complain([ConfigError(message, confdir(), hint=hint)])
    faults: list[PcoccError] = []
    hcas = _read_hcas(networks, faults)
    stocks = _read(networks, site, hcas)
    if arguments.bind:
        faults += ensure_bound(stocks, SYS)
        stocks = _read(networks, site, _read_hcas(networks, []))
    rows = [_HEADS, *(_row(stock, one) for stock in stocks for one in stock.functions)]
    sys.stdout.write(columns(rows))
    found = [find_twice(stocks, here)]
    found += [find_fault(one, stock.name, here) for stock in stocks for one in stock.functions]
    faults += [fault for fault in found if fault]
    if not faults:
        sys.stdout.write("\ngres.conf:\n" + "".join(f"{line}\n" for line in render_gres(stocks)))
    return complain(faults)


def _read(networks: Sequence[FunctionNetwork], site: Site, hcas: dict[str, Hca]) -> tuple[Stock, ...]:
    return read_stocks(networks, site.devices.values(), hcas, SYS)


def _read_hcas(networks: Sequence[FunctionNetwork], faults: list[PcoccError]) -> dict[str, Hca]:
    """Return the InfiniBand devices that networks name; a fault of one does not hide the others."""
    found: dict[str, Hca] = {}
    for name in dict.fromkeys(one.host_device for one in networks if not isinstance(one, GenericPci)):
        try:
            found |= read_devices([name], SYS)
        except PcoccError as error:
            faults.append(error)
    return found


def _row(stock: Stock, one: Function) -> tuple[str, ...]:
    numa = "-" if one.numa < 0 else str(one.numa)
    path = device_node(one)
    return (
        stock.name, stock.gres, str(one.number), one.address, one.driver or "-", numa, path, _user_of(path),
    )


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
