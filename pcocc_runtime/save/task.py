"""The task of a save: runs on the VM's node, as the VM's user."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from pcocc_runtime import errors, terminal
from pcocc_runtime.documents.save import SAVE_VERB
from pcocc_runtime.documents.wire import ENV_VM_NAME
from pcocc_runtime.save.options import add_options, one_name


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"pcocc: error: {SAVE_VERB}: {message}\nhint: pcocc save --help\n")
        raise SystemExit(errors.EXIT_USAGE)


def main(argv: Sequence[str]) -> int:
    """Be the task: save the VM named in the environment, from here or from the node it runs on."""
    parser = _Parser(prog=f"srun --pcocc-vm=VMS {SAVE_VERB}", description="What 'pcocc save' runs.")
    add_options(parser)
    arguments = parser.parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    vm = os.environ.get(ENV_VM_NAME, "")
    try:
        return _run(vm, arguments, argv)
    except errors.PcoccError as error:
        sys.stderr.write(errors.render(error) + "\n")
    except OSError as error:
        sys.stderr.write(f"pcocc: error: {vm} cannot be saved: {errors.one_line(str(error))}\n")
    except Exception as error:  # the outermost layer
        sys.stderr.write(errors.render(terminal.confess(error)) + "\n")
    except KeyboardInterrupt:
        sys.stderr.write(f"pcocc: {vm} was not saved: interrupted\n")
        return 130
    return errors.EXIT_FAILURE


def _run(vm: str, arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    from pathlib import Path

    from pcocc_runtime import naming, terminal
    from pcocc_runtime.images.repositories import load_own_repos
    from pcocc_runtime.images.sizes import render_size
    from pcocc_runtime.save.moment import read_vm
    from pcocc_runtime.save.save import SaveOptions, save_vm
    from pcocc_runtime.steps.operations import go_to_node

    job = int(os.environ["SLURM_JOB_ID"])
    if arguments.dest is not None and int(os.environ.get("SLURM_STEP_NUM_TASKS") or "1") > 1:
        raise one_name(arguments.dest)
    go_to_node(job, vm, [SAVE_VERB, *argv])
    wish = SaveOptions(arguments.dest, arguments.drive, arguments.full, arguments.safe)
    with terminal.Meter() as meter:
        found, size = save_vm(
            read_vm(vm, Path(naming.job_dir(job) / vm)), wish, load_own_repos(), meter.begin, _note
        )  # fmt: skip
    sys.stdout.write(f"saved {vm} as {found.reference} ({render_size(size)})\n")
    return 0


def _note(text: str) -> None:
    sys.stderr.write(f"pcocc: note: {errors.one_line(text)}\n")


def _stop(number: int, _frame: object) -> NoReturn:
    sys.stderr.write("pcocc: the save was interrupted\n")
    raise SystemExit(128 + number)
