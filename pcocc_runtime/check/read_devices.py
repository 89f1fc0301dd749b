"""What is seen of the devices that the site gives to VMs: those of this node, and what is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path

from pcocc_runtime.check import seen
from pcocc_runtime.networks.functions import find_fault, find_twice
from pcocc_runtime.networks.host_functions import read_known, read_stocks
from pcocc_runtime.networks.kinds import FunctionNetwork, GenericPci
from pcocc_runtime.site.site import Site


def read_given_devices(site: Site, sys: Path = Path("/sys")) -> seen.Devices:
    """Return how many functions this node has for VMs, which of them cannot be given, and which devices it has not."""
    networks = [one for one in site.all_networks.values() if isinstance(one, FunctionNetwork)]
    known, missing = read_known([one for one in networks if not isinstance(one, GenericPci)], sys)
    stocks, here = read_stocks(networks, site.devices.values(), known, sys), os.uname().nodename
    found = [find_twice(stocks, here)]
    found += [find_fault(one, stock.name, here) for stock in stocks for one in stock.functions]
    return seen.Devices(
        bool(networks or site.devices), sum(len(stock.functions) for stock in stocks),
        tuple((one.message, one.hint) for one in found if one), tuple(one.message for one in missing),
    )  # fmt: skip
