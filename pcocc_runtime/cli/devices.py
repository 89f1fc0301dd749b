"""`pcocc node devices`: the InfiniBand devices of a node that networks name, and their lines of gres.conf."""

from __future__ import annotations

import argparse
import os
import pwd
import sys

from pcocc_runtime.cli.common import complain, confdir
from pcocc_runtime.cli.partitions import partitions_of
from pcocc_runtime.errors import ConfigError, PcoccError
from pcocc_runtime.networks.host_functions import ensure_bound, read_devices
from pcocc_runtime.networks.partitions import Hca, device_node, find_fault, render_gres
from pcocc_runtime.site.site import read_site
from pcocc_runtime.tables import columns

_HEADS = ("DEVICE", "FUNCTION", "ADDRESS", "DRIVER", "NUMA", "FILE", "USER")


def show_devices(arguments: argparse.Namespace) -> int:
    """Print this node's virtual functions and its lines of gres.conf; complain of functions that VMs cannot have."""
    networks = partitions_of(read_site(confdir()))
    if not networks:
        message, hint = "there is no network of type infiniband", "see pcocc-networks.yaml(5)"
        return complain([ConfigError(message, f"{confdir()}/networks.yaml", hint=hint)])
    names = dict.fromkeys(one.host_device for one in networks)
    if arguments.bind:
        ensure_bound(names)
    devices = read_devices(names)
    rows = [
        _HEADS,
        *(
            _row(name, device, place)
            for name, device in devices.items()
            for place in range(len(device.functions))
        ),
    ]
    sys.stdout.write(columns(rows))
    faults: list[PcoccError] = [
        fault
        for name, device in devices.items()
        for one in device.functions
        if (fault := find_fault(one, name, os.uname().nodename))
    ]
    if not faults:
        sys.stdout.write("\ngres.conf:\n" + "".join(f"{line}\n" for line in render_gres(networks, devices)))
    return complain(faults)


def _row(name: str, device: Hca, place: int) -> tuple[str, ...]:
    one = device.functions[place]
    numa = "-" if one.numa < 0 else str(one.numa)
    return (
        name, str(one.number), one.address, one.driver or "-", numa, device_node(one),
        _user_of(device_node(one)),
    )


def _user_of(path: str) -> str:
    """Return who may open a function, which is the user of the job that has it; '-' when it is free or has no file."""
    try:
        uid = os.stat(path).st_uid
    except FileNotFoundError:
        return "-"
    try:
        return pwd.getpwuid(uid).pw_name if uid else "-"
    except KeyError:
        return str(uid)
