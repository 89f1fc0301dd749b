"""`pcocc config partitions`: what the subnet manager must be given once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pcocc_runtime.cli.common import complain, confdir
from pcocc_runtime.errors import ConfigError
from pcocc_runtime.networks.kinds import InfinibandNetwork
from pcocc_runtime.networks.opensm import find_faults, render_opensm, render_ufm
from pcocc_runtime.site.check import load_everything
from pcocc_runtime.site.site import Site

_FORMATS = {"opensm": render_opensm, "ufm": render_ufm}


def add_partitions(parser: argparse.ArgumentParser) -> None:
    """Add the options of `pcocc config partitions`."""
    parser.add_argument(
        "--format", choices=_FORMATS, default="opensm", help="opensm (the default), or ufm for NVIDIA's UFM"
    )
    parser.add_argument(
        "--check",
        metavar="FILE",
        help="check an installed file of partitions instead of printing one",
    )
    parser.set_defaults(run=_config_partitions)


def partitions_of(site: Site) -> list[InfinibandNetwork]:
    """Return the site's networks of type infiniband."""
    return [one for one in site.all_networks.values() if isinstance(one, InfinibandNetwork)]


def _config_partitions(arguments: argparse.Namespace) -> int:
    loaded = load_everything(confdir())
    if loaded.problems:
        return complain(loaded.problems)
    networks = partitions_of(loaded.site)
    if not networks:
        message, hint = "there is no network of type infiniband", "see pcocc-networks.yaml(5)"
        return complain([ConfigError(message, f"{confdir()}/networks.yaml", hint=hint)])
    if arguments.check:
        return _check(arguments.check, networks)
    for line in _FORMATS[arguments.format](networks):
        sys.stdout.write(f"{line}\n")
    return 0


def _check(path: str, networks: Sequence[InfinibandNetwork]) -> int:
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            faults = [*find_faults(file, networks, path)]
    except OSError as error:
        return complain([ConfigError(f"cannot be read: {error.strerror}", path)])
    if not faults:
        sys.stdout.write(f"{path}: has pcocc's partitions, no error\n")
    return complain(faults)
