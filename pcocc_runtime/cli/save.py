"""`pcocc save`, and the task it starts on the VM's node: `srun --pcocc-vm=vmN @save ...`."""

from __future__ import annotations

import argparse
import os
import re

from pcocc_runtime import errors, terminal
from pcocc_runtime.documents.verbs import SAVE_VERB
from pcocc_runtime.save.options import add_options, one_name


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
    parser.add_argument(
        "--clean", action="store_true",
        help="leave out what identifies the VM: ssh keys, machine-id, cloud-init's state"
    )
    parser.set_defaults(run=_save)


def _save(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.slurm.steps import run_step

    job: str | None = arguments.job or os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise errors.RequestError("which job? give -j JOB", "squeue shows yours")
    if arguments.dest is not None and not re.fullmatch(r"vm[0-9]+", arguments.vms, re.ASCII):
        raise one_name(arguments.dest)
    if arguments.clean and arguments.drive:
        raise errors.RequestError(
            "--clean is about the boot disk, not about a persistent drive", "leave out --clean, or --drive"
        )
    words = [SAVE_VERB]
    words += [f"--dest={arguments.dest}"] if arguments.dest is not None else []
    words += [f"--drive={arguments.drive}"] if arguments.drive else []
    words += [word for word, given in (("--full", arguments.full), ("--safe", arguments.safe)) if given]
    if arguments.clean:
        return _save_clean(job, arguments.vms, words)
    status = run_step(job, arguments.vms, words)
    if not status and not arguments.drive:
        terminal.say_note(_KEPT)
    return status


_KEPT = (
    "the image has what identifies the VM: the job's ssh keys, which let into its VMs while the job runs,"
    " host keys, machine-id and cloud-init's state; --clean leaves these out"
)


def _save_clean(job: str, vms: str, words: list[str]) -> int:
    """Save without what identifies the VM, which its guest puts aside meanwhile, and takes back however the
    save ends."""
    from pcocc_runtime.guest import clean
    from pcocc_runtime.slurm.steps import run_step

    restore = clean.render_restore()
    try:
        if run_step(job, vms, clean.render_clean()):
            text = f"{vms} cannot put aside what identifies it, so nothing is saved"
            raise errors.NodeError(
                text, "its user must be able to become root there: sudo -n true; and it needs tar"
            )
        status = run_step(job, vms, words)
    finally:
        if run_step(job, vms, restore):
            terminal.say_note(
                f"{vms} has not taken back what was put aside: it is in {clean.ASIDE} there, as root: tar -C"
                f" / -xpf {clean.ASIDE}"
            )
    if not status:
        terminal.say_note(
            "the image has no ssh keys of the job or the host, no machine-id and no state of cloud-init; it"
            f" has {clean.LEFT}"
        )
    return status
