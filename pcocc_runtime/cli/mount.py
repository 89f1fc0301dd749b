"""`pcocc mount` and `pcocc umount`: directories of the host in running VMs."""

from __future__ import annotations

import argparse
from dataclasses import replace

from pcocc_runtime.cli.operating import JOB_HELP, SEVERAL, run_in_vms
from pcocc_runtime.documents.verbs import MOUNT_VERB
from pcocc_runtime.errors import RequestError
from pcocc_runtime.qemu.hot_directories import parse_directory, render_directory
from pcocc_runtime.system.user_files import absolute_path

_LIST = "list"


def add_mount(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc mount`."""
    parser.usage = "pcocc mount [-j JOB] VMS TAG=PATH[,readonly] ...\n       pcocc mount [-j JOB] list VMS"
    parser.description = (
        "Gives running VMs directories of the host, over virtiofs, and has their guests mount each at /mnt/TAG. Their"
        " memory must be shared, as it is where the job has a directory over virtiofs from the beginning."
        " 'pcocc mount list VMS' lists what VMs have."
    )
    parser.add_argument("vms", metavar="VMS", help=SEVERAL)
    parser.add_argument("-j", "--job", metavar="JOB", help=JOB_HELP)
    parser.add_argument(
        "directories", metavar="DIRECTORY", nargs="+", help="TAG=PATH[,readonly]; %%v in it stands for the VM's name"
    )
    parser.set_defaults(run=_mount)


def add_umount(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc umount`."""
    parser.description = (
        "Takes directories back that 'pcocc mount' has given to running VMs: their guests unmount and release them."
    )
    parser.add_argument("vms", metavar="VMS", help=SEVERAL)
    parser.add_argument("tags", metavar="TAG", nargs="+", help="as 'pcocc mount list' shows it")
    parser.add_argument("-j", "--job", metavar="JOB", help=JOB_HELP)
    parser.add_argument(
        "-t", "--time", metavar="SECONDS", help="how long a guest may take to release a directory; default: 60"
    )
    parser.add_argument("--now", action="store_true", help="do not have the guests unmount it before")
    parser.set_defaults(run=_umount)


def _mount(arguments: argparse.Namespace) -> int:
    words = list(arguments.directories)
    if arguments.vms == _LIST:
        if len(words) != 1:
            raise RequestError("'pcocc mount list' takes one set of VMs", "write vm0, or vm[0-3,7]")
        arguments.vms = words[0]
        return run_in_vms(arguments, [MOUNT_VERB, _LIST])
    mounts = [parse_directory(word) for word in words]
    given = [render_directory(replace(one, path=str(absolute_path(one.path)))) for one in mounts]
    return run_in_vms(arguments, [MOUNT_VERB, "add", *given])


def _umount(arguments: argparse.Namespace) -> int:
    time = [] if arguments.time is None else [f"--time={arguments.time}"]
    now = ["--now"] if arguments.now else []
    return run_in_vms(arguments, [MOUNT_VERB, "remove", *time, *now, *arguments.tags])
