"""`pcocc console`, `log` and `screenshot`: what a VM shows."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pcocc_runtime import errors, terminal
from pcocc_runtime.cli.operating import JOB_HELP, run_at_terminal, run_in_vms
from pcocc_runtime.documents.verbs import CONSOLE_VERB, LOG_VERB, SCREENSHOT_VERB

_PNG = b"\x89PNG\r\n"


def add_console(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc console`."""
    parser.description = (
        "Shows the serial console of a VM, beginning with what it wrote before, and sends it what you type;"
        " Ctrl-] leaves it. Only one at a time can type; others watch."
    )
    _add_vm(parser)
    parser.add_argument("-w", "--watch", action="store_true", help="only watch: what you type is not sent")
    parser.set_defaults(run=_console)


def add_log(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc log`."""
    parser.description = "Writes what a VM has written to its serial console, as far as it is kept."
    parser.add_argument("vms", metavar="VMS", help="vm0, vm0.JOB, or several such as vm[0-3]")
    parser.add_argument("-j", "--job", metavar="JOB", help=JOB_HELP)
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on with what the VM writes, until it ends"
    )
    parser.add_argument("-n", "--lines", metavar="LINES", help="only the last LINES lines")
    parser.set_defaults(run=_log)


def add_screenshot(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc screenshot`."""
    parser.description = "Writes what the display of a VM shows as a PNG; its template must have a display."
    _add_vm(parser)
    parser.add_argument("file", metavar="FILE", nargs="?", help="- for standard output; default: VM.JOB.png")
    parser.set_defaults(run=_screenshot)


def _add_vm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("vm", metavar="VM", help="vm0, or vm0.JOB")
    parser.add_argument("-j", "--job", metavar="JOB", help=JOB_HELP)


def _console(arguments: argparse.Namespace) -> int:
    return run_at_terminal(
        arguments.vm, arguments.job, [CONSOLE_VERB, *(["--watch"] if arguments.watch else [])]
    )


def _log(arguments: argparse.Namespace) -> int:
    lines = arguments.lines
    if lines is not None and not (lines.isascii() and lines.isdigit() and len(lines) < 9):
        raise errors.RequestError(f"{lines!r} is not a number of lines", "write -n 20")
    words = [
        LOG_VERB,
        *(["--follow"] if arguments.follow else []),
        *([f"--lines={lines}"] if lines is not None else []),
    ]
    if os.geteuid() == 0 and not arguments.follow:
        from pcocc_runtime.cli.login import find_vms
        from pcocc_runtime.slurm.steps import run_step_for_root

        job, vms = find_vms(arguments.vms, arguments.job)
        return run_step_for_root(job, vms, words)
    return run_in_vms(arguments, words)


def _screenshot(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.cli.login import find_job, find_vm
    from pcocc_runtime.slurm.steps import AS_BYTES, find_own_job, operation_argv, read_vm_step
    from pcocc_runtime.system import files

    vm = find_vm(arguments.vm)
    job = find_own_job(find_job(arguments.job, [vm.job])).job
    status, data = read_vm_step(operation_argv(job, vm.vm, [SCREENSHOT_VERB], streams=AS_BYTES))
    if status:
        return status
    if not data.startswith(_PNG):
        raise errors.NodeError(f"what arrived as the screenshot of {vm.vm} is not a PNG", "try again")
    if arguments.file == "-":
        if os.isatty(1):
            raise errors.RequestError("a picture cannot be written to a terminal", "write the name of a file")
        sys.stdout.buffer.write(data)
        return 0
    path = Path(arguments.file or f"{vm.vm}.{job}.png")
    files.replace_file(path, data, 0o644)
    terminal.say_note(f"screenshot of {vm.vm} written to {path}")
    return 0
