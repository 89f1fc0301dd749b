"""`pcocc nc`: a connection to a TCP port of a VM, by a step of its job; ProxyCommand of `pcocc ssh`, too."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
from types import FrameType
from typing import TYPE_CHECKING

from pcocc_runtime import errors

if TYPE_CHECKING:
    from pcocc_runtime.slurm.steps import StartedOperation

_LAST_SECONDS = 3.0  # for which an srun whose reader has gone may end in order


def add_nc(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc nc`."""
    parser.description = (
        "Connects standard input and output to a TCP port of a VM, through a step of its job. The job must be"
        " yours."
    )
    parser.add_argument("vm", metavar="VM", help="vm0, or vm0.JOB")
    parser.add_argument("port", metavar="PORT", help="its number")
    parser.add_argument(
        "-j", "--job", metavar="JOB", help="default: the job you are in, or your only one with running VMs"
    )
    parser.set_defaults(run=_nc)


def _nc(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.cli.login import find_job, find_vm
    from pcocc_runtime.documents.verbs import NC_VERB
    from pcocc_runtime.slurm.steps import AS_BYTES, find_own_job, operation_argv

    vm, port = find_vm(arguments.vm), arguments.port
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise errors.RequestError(f"{port!r} is not a port", "a port is a number from 1 to 65535")
    job = find_own_job(find_job(arguments.job, [vm.job])).job
    return run_stream(operation_argv(job, vm.vm, [NC_VERB, port], streams=AS_BYTES), inside=True)


def run_stream(argv: list[str], inside: bool) -> int:
    """Run such an srun with our input and output to its end.

    ssh hangs up on its ProxyCommand as soon as it has read all: srun, which would complain of that, is in a
    session of its own and ends with its input. A terminal is left to it alone.
    """
    from pcocc_runtime.slurm.steps import start_operation

    apart = not os.isatty(0)
    told: list[int] = []
    waits = False

    def end(number: int, _frame: FrameType | None) -> None:
        told.append(number)
        if waits:
            raise KeyboardInterrupt

    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, end)
    child = start_operation(argv, inside, apart)
    while True:
        try:
            waits = True
            return _end(child) if told else child.wait()
        except KeyboardInterrupt:
            if not apart and not told:
                continue  # the terminal tells srun, too
            return _end(child)


def _end(child: StartedOperation) -> int:
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    try:
        return child.wait(_LAST_SECONDS)
    except subprocess.TimeoutExpired:
        child.process.terminate()
        return 128 + signal.SIGTERM
