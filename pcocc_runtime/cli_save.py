"""`pcocc save`, and the task it starts on the VM's node: `srun --pcocc-vm=vmN @save ...`."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from pcocc_runtime import cli_streams, errors  # the rest only where it is used: every `pcocc` imports this

VERB = "@save"


def add_save(parser: argparse.ArgumentParser) -> None:
    """Add the options of `pcocc save`."""
    parser.description = (
        "Saves the disk of a running VM, which goes on meanwhile, as a revision of the image it runs from. Only what the VM "
        "has changed since it booted is stored. A persistent drive is saved whole, as a new image. The VM's job must be yours."
    )
    parser.add_argument("vms", metavar="VMS", help="vm0, or several such as vm[0-3], each of which makes a revision of its own")
    parser.add_argument("-j", "--job", metavar="JOB", help="default: the job this is typed in")
    _add_wish(parser)
    parser.set_defaults(run=_save)


def _add_wish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-d", "--dest", metavar="NAME", help="make a new image, as [REPO:]NAME; without REPO in the first repository"
    )
    parser.add_argument(
        "--drive", metavar="I", type=_number, default=0, help="the disk to save; 0, the default, is the boot disk, persistent drives follow"
    )
    parser.add_argument("--full", action="store_true", help="store the whole disk, as an image that needs no other")
    parser.add_argument("--safe", action="store_true", help="fail unless the guest's agent freezes its file systems")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 4):
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a drive")
    return int(text)


def _save(arguments: argparse.Namespace) -> int:
    from pcocc_runtime import saverun

    job: str | None = arguments.job or os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise errors.RequestError("which job? give -j JOB", "squeue shows yours")
    if arguments.dest is not None and not re.fullmatch(r"vm[0-9]+", arguments.vms, re.ASCII):
        raise _one_name(arguments.dest)
    words = [VERB]
    words += [f"--dest={arguments.dest}"] if arguments.dest is not None else []
    words += [f"--drive={arguments.drive}"] if arguments.drive else []
    words += [word for word, given in (("--full", arguments.full), ("--safe", arguments.safe)) if given]
    return saverun.run_step(job, arguments.vms, words)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"pcocc: error: {VERB}: {message}\nhint: pcocc save --help\n")
        raise SystemExit(errors.EXIT_USAGE)


def main(argv: Sequence[str]) -> int:
    """Be the task: save the VM named in the environment, from here or from the node it runs on."""
    parser = _Parser(prog=f"srun --pcocc-vm=VMS {VERB}", description="What 'pcocc save' runs.")
    _add_wish(parser)
    arguments = parser.parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    vm = os.environ.get("PCOCC_VM_NAME", "")
    try:
        return _run(vm, arguments, argv)
    except errors.PcoccError as error:
        sys.stderr.write(errors.render(error) + "\n")
    except OSError as error:
        sys.stderr.write(f"pcocc: error: {vm} cannot be saved: {errors.one_line(str(error))}\n")
    except Exception as error:  # the outermost layer
        sys.stderr.write(errors.render(cli_streams.confess(error)) + "\n")
    except KeyboardInterrupt:
        sys.stderr.write(f"pcocc: {vm} was not saved: interrupted\n")
        return 130
    return errors.EXIT_FAILURE


def _run(vm: str, arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    from pathlib import Path

    from pcocc_runtime import cli_progress, imagemeta, naming, save, savemoment, saverun

    job = int(os.environ["SLURM_JOB_ID"])
    if arguments.dest is not None and int(os.environ.get("SLURM_STEP_NUM_TASKS") or "1") > 1:
        raise _one_name(arguments.dest)
    saverun.go_to_node(job, vm, [VERB, *argv])
    wish = save.Wish(arguments.dest, arguments.drive, arguments.full, arguments.safe)
    with cli_progress.Meter() as meter:
        found, size = save.save_vm(
            savemoment.read_vm(vm, Path(naming.job_dir(job) / vm)), wish, saverun.load_repos(), meter.begin, _note
        )  # fmt: skip
    sys.stdout.write(f"saved {vm} as {found.reference} ({imagemeta.render_size(size)})\n")
    return 0


def _one_name(name: str) -> errors.RequestError:
    return errors.RequestError(f"several VMs cannot be saved as one image {name[:80]!r}", "save one VM, or leave -d away")


def _note(text: str) -> None:
    sys.stderr.write(f"pcocc: note: {errors.one_line(text)}\n")


def _stop(number: int, _frame: object) -> NoReturn:
    sys.stderr.write("pcocc: the save was interrupted\n")
    raise SystemExit(128 + number)
