"""`pcocc save`, and the task it starts on the VM's node: `srun --pcocc-vm=vmN @save ...`."""

from __future__ import annotations

import argparse
import os
import re

from pcocc_runtime import errors
from pcocc_runtime.documents.verbs import SAVE_VERB
from pcocc_runtime.save.options import add_options, ensure_boot_disk, one_name


def add_save(parser: argparse.ArgumentParser) -> None:
    """Add the options of `pcocc save`."""
    parser.description = (
        "Saves the disk of a VM, which keeps running, as a revision of the image it runs from. Only what the"
        " VM has changed since it booted is stored. A persistent drive is saved whole, as a new image. The"
        " VM's job must be yours."
    )
    parser.add_argument(
        "vms", metavar="VMS", help="vm0, or several such as vm[0-3]; each makes its own revision"
    )
    parser.add_argument("-j", "--job", metavar="JOB", help="default: the job you are in")
    add_options(parser)
    parser.set_defaults(run=_save)


def _save(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.slurm.steps import run_step

    job: str | None = arguments.job or os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise errors.RequestError("which job? give -j JOB", "squeue shows yours")
    if arguments.dest is not None and not re.fullmatch(r"vm[0-9]+", arguments.vms, re.ASCII):
        raise one_name(arguments.dest)
    ensure_boot_disk(arguments.clean, arguments.drive)
    words = [SAVE_VERB]
    words += [f"--dest={arguments.dest}"] if arguments.dest is not None else []
    words += [f"--drive={arguments.drive}"] if arguments.drive else []
    for name in ("full", "clean", "safe"):
        words += [f"--{name}"] if getattr(arguments, name) else []
    return run_step(job, arguments.vms, words)
