"""`pcocc reset`, `power`, `monitor`, `qmp`, `agent`, `dump`, `topology`: operations on VMs, as steps."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pcocc_runtime import errors
from pcocc_runtime.documents.verbs import (
    AGENT_VERB,
    DUMP_VERB,
    MONITOR_VERB,
    POWER_VERB,
    QMP_VERB,
    RESET_VERB,
    TOPOLOGY_VERB,
)

JOB_HELP = "default: the job you are in, or your only one with running VMs"
_ONE, SEVERAL = "vm0, or vm0.JOB", "vm0, vm0.JOB, or several such as vm[0-3]"


def add_reset(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc reset`."""
    parser.description = "Resets VMs, as a reset button would: their guests are not asked."
    _add_vms(parser, SEVERAL)
    parser.set_defaults(run=lambda arguments: run_in_vms(arguments, [RESET_VERB]))


def add_power(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `pcocc power`."""
    parser.description = (
        "A VM that is powered off ends, and its job goes on as long as other VMs run. "
        "If its template says 'on-power-off: keep', it can be powered on again."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    off = verbs.add_parser("off", help="have the guests power off")
    _add_vms(off, SEVERAL)
    how = off.add_mutually_exclusive_group()
    how.add_argument("-t", "--time", metavar="SECONDS", help="how long a guest may take; default: 120")
    how.add_argument(
        "--now", action="store_true", help="do not ask the guests: what they have not written to disk is lost"
    )
    off.set_defaults(run=_power_off)
    on = verbs.add_parser("on", help="boot VMs again that were powered off and kept ('on-power-off: keep')")
    _add_vms(on, SEVERAL)
    on.set_defaults(run=lambda arguments: run_in_vms(arguments, [POWER_VERB, "on"]))
    cycle = verbs.add_parser("cycle", help="power VMs off, then on again")
    _add_vms(cycle, SEVERAL)
    cycle.add_argument(
        "-t", "--time", metavar="SECONDS", help="how long a guest may take to power off; default: 120"
    )
    cycle.set_defaults(run=lambda arguments: run_in_vms(arguments, [POWER_VERB, "cycle", *_given(arguments.time)]))


def add_monitor(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc monitor`."""
    parser.description = (
        "Runs a command of QEMU's monitor, or shows a prompt for several, where Tab completes them and Ctrl-D"
        " leaves."
    )
    _add_vms(parser, SEVERAL)
    parser.add_argument("words", metavar="COMMAND", nargs=argparse.REMAINDER, help="such as 'info block'")
    parser.set_defaults(run=_monitor)


def add_qmp(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc qmp`."""
    parser.description = (
        "Sends one QMP message to the QEMU of each VM, and writes each answer as a line of JSON."
    )
    _add_vms(parser, SEVERAL)
    parser.add_argument(
        "message", metavar="JSON", help="a message, or the name of a command such as query-status"
    )
    parser.set_defaults(run=lambda arguments: run_in_vms(arguments, [QMP_VERB, arguments.message]))


def add_agent(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc agent`."""
    parser.description = "Sends a command to the QEMU agent of each guest, and writes each answer as a line of JSON."
    _add_vms(parser, SEVERAL)
    parser.add_argument(
        "command", metavar="COMMAND", help="such as info or guest-info, which lists the others"
    )
    parser.add_argument("values", metavar="JSON", nargs="?", help="its arguments, a mapping")
    parser.set_defaults(
        run=lambda arguments: run_in_vms(arguments, [AGENT_VERB, arguments.command, *_given(arguments.values)])
    )


def add_dump(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc dump`."""
    parser.description = (
        "Writes the memory of a VM as an ELF file, for crash(8), on the VM's node: FILE should be in a"
        " directory that nodes share. The VM is paused meanwhile."
    )
    _add_vms(parser, SEVERAL)
    parser.add_argument("file", metavar="FILE", help="%%v in it stands for the VM's name")
    parser.set_defaults(
        run=lambda arguments: run_in_vms(arguments, [DUMP_VERB, str(Path(arguments.file).absolute())])
    )


def add_topology(parser: argparse.ArgumentParser) -> None:
    """Add the words of `pcocc topology`."""
    parser.description = (
        "Shows what VMs hold on their nodes beside what their guests see: CPUs, caches, NUMA nodes, and where "
        "memory lies."
    )
    _add_vms(parser, SEVERAL)
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a VM does not run as planned")
    parser.add_argument("--json", action="store_true", help="as JSON, one line for each VM")
    for whose, where in (("guest", "in the VM"), ("host", "in a step on its node")):
        parser.add_argument(
            f"--{whose}-lstopo", metavar="FILE", help=f"compare with what 'lstopo --of xml FILE' has written {where}"
        )
    parser.set_defaults(run=_topology)


def _topology(arguments: argparse.Namespace) -> int:
    words = [word for word, given in (("--check", arguments.check), ("--json", arguments.json)) if given]
    files = (("--guest-lstopo", arguments.guest_lstopo), ("--host-lstopo", arguments.host_lstopo))
    words += [f"{word}={Path(file).absolute()}" for word, file in files if file is not None]
    return run_in_vms(arguments, [TOPOLOGY_VERB, *words])


def _add_vms(parser: argparse.ArgumentParser, which: str) -> None:
    parser.add_argument("vms", metavar="VMS" if which == SEVERAL else "VM", help=which)
    parser.add_argument("-j", "--job", metavar="JOB", help=JOB_HELP)


def _given(text: str | None) -> list[str]:
    return [] if text is None else [text]


def _power_off(arguments: argparse.Namespace) -> int:
    if arguments.now:
        return run_in_vms(arguments, [POWER_VERB, "off", "--now"])
    return run_in_vms(arguments, [POWER_VERB, "off", *_given(arguments.time)])


def _monitor(arguments: argparse.Namespace) -> int:
    if arguments.words:
        return run_in_vms(arguments, [MONITOR_VERB, *arguments.words])
    return run_at_terminal(arguments.vms, arguments.job, [MONITOR_VERB])


def run_in_vms(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    """Run an operation in VMs; return its exit status, of several VMs the highest."""
    from pcocc_runtime.cli.login import find_vms
    from pcocc_runtime.slurm.steps import run_step
    from pcocc_runtime.steps.operations import ensure_words

    ensure_words(words)
    job, vms = find_vms(arguments.vms, arguments.job)
    return run_step(job, vms, words, deed="use")


def run_at_terminal(vms: str, typed: str | None, words: Sequence[str]) -> int:
    """Run an operation that uses this terminal, if there is one; put its settings back afterwards."""
    import termios

    from pcocc_runtime.cli.login import find_vms
    from pcocc_runtime.slurm.steps import AS_BYTES, AS_TERMINAL, run_step
    from pcocc_runtime.steps.operations import ensure_words

    ensure_words(words)
    job, found = find_vms(vms, typed)
    if not (os.isatty(0) and os.isatty(1)):
        return run_step(job, found, words, deed="use", streams=AS_BYTES)
    if "[" in found or "," in found:
        raise errors.RequestError(f"{found} are several VMs, but one terminal can show only one", "name one: vm0")
    saved = termios.tcgetattr(0)
    try:
        return run_step(job, found, words, deed="use", streams=AS_TERMINAL)
    finally:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(0, termios.TCSADRAIN, saved)
        sys.stdout.flush()
