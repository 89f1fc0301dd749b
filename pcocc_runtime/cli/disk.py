"""`pcocc disk`: persistent drives of running VMs."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from pcocc_runtime.cli.operating import JOB_HELP, SEVERAL, run_in_vms
from pcocc_runtime.documents.verbs import DISK_VERB
from pcocc_runtime.qemu.hot_drives import parse_drive, render_drive
from pcocc_runtime.qemu.hot_names import is_drive


def add_disk(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `pcocc disk`."""
    parser.description = (
        "A drive is a disk image of yours that VMs write in place, as with persistent-drives in a template. It is"
        " locked as those are, until it is detached or the VM ends."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    attach = verbs.add_parser("attach", help="give running VMs drives")
    _add_vms(attach)
    attach.add_argument(
        "drives", metavar="DRIVE", nargs="+",
        help="PATH[,format=qcow2][,mmp=no|cluster][,cache=...]; %%v in it stands for the VM's name",
    )  # fmt: skip
    attach.set_defaults(run=_attach)
    detach = verbs.add_parser("detach", help="take drives back, which the guests must have unmounted")
    _add_vms(detach)
    detach.add_argument("names", metavar="NAME", nargs="+", help="a name that 'pcocc disk list' shows, or a path")
    detach.add_argument(
        "-t", "--time", metavar="SECONDS", help="how long a guest may take to release a drive; default: 60"
    )
    detach.set_defaults(run=_detach)
    shown = verbs.add_parser("list", help="the disks of running VMs")
    _add_vms(shown)
    shown.set_defaults(run=lambda arguments: run_in_vms(arguments, [DISK_VERB, "list"]))


def _add_vms(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("vms", metavar="VMS", help=SEVERAL)
    parser.add_argument("-j", "--job", metavar="JOB", help=JOB_HELP)


def _attach(arguments: argparse.Namespace) -> int:
    drives = [parse_drive(text) for text in arguments.drives]
    words = [render_drive(replace(one, path=str(Path(one.path).absolute()))) for one in drives]
    return run_in_vms(arguments, [DISK_VERB, "attach", *words])


def _detach(arguments: argparse.Namespace) -> int:
    names = [one if is_drive(one) else str(Path(one).absolute()) for one in arguments.names]
    time = [] if arguments.time is None else [f"--time={arguments.time}"]
    return run_in_vms(arguments, [DISK_VERB, "detach", *time, *names])
