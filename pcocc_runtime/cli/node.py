"""`pcocc node`: whether a node has what jobs with VMs need, for its administrator."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from pcocc_runtime import errors, terminal  # the rest only where it is used: every `pcocc` imports this
from pcocc_runtime.errors import RequestError


def add_node(parser: argparse.ArgumentParser) -> None:
    """Add the verb of `pcocc node`."""
    parser.description = (
        "On a node: check, for root, looks at everything that a job with VMs needs there, and changes nothing; "
        "devices shows those that VMs may have."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    check = verbs.add_parser(
        "check",
        help=(
            "say of each point that it is right, or what is wrong and what mends it; exit status 1 if any is wrong"
        ),
    )
    check.add_argument(
        "-a", "--all", action="store_true",
        help="check every node of the cluster, by srun, and say what differs between them",
    )
    check.add_argument(
        "-b", "--boot", metavar="TEMPLATE", nargs="?", const="",
        help="also boot a VM of this template; without a name, of the site's first template that has an image"
    )
    check.add_argument("--json", action="store_true", help="all of it, as JSON")
    check.set_defaults(run=_check)
    devices = verbs.add_parser(
        "devices",
        help="the virtual functions that VMs may have, who has them, and their lines of gres.conf",
    )
    devices.add_argument(
        "--bind", action="store_true", help="before slurmd starts: bind those without a driver to vfio-pci"
    )
    devices.set_defaults(run=_devices)


def _devices(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.cli.devices import show_devices

    return show_devices(arguments)


def _check(arguments: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise RequestError("pcocc node check looks at what only root may see", "run it as root")
    return _check_all(arguments) if arguments.all else _check_here(arguments)


def _check_here(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.check import everywhere, points, read_node, report
    from pcocc_runtime.documents.node_report import encode_report
    from pcocc_runtime.settings.directories import SITE_DIR

    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{read_node.PATH}"
    found = points.check_node()
    if arguments.boot is not None:
        found = replace(found, points=(*found.points, everywhere.boot_guest(SITE_DIR, arguments.boot)))
    terminal.write_out(encode_report(found) if arguments.json else report.render_report(found))
    return errors.EXIT_FAILURE if found.failures else 0


def _check_all(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.check import everywhere, report
    from pcocc_runtime.documents.node_report import ManyReports, encode_reports

    boot = [] if arguments.boot is None else [f"--boot={arguments.boot}" if arguments.boot else "--boot"]
    line = terminal.ProgressLine()
    line.show("asking all nodes")
    reports, silent = everywhere.run_on_nodes(
        str(Path(sys.argv[0]).absolute()), ["node", "check", "--json", *boot]
    )
    line.clear()
    many = ManyReports(reports, silent, report.compare(reports))
    terminal.write_out(encode_reports(many) if arguments.json else report.render_reports(many))
    return 0 if many.is_well else errors.EXIT_FAILURE
