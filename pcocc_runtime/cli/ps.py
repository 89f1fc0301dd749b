"""`pcocc ps`: the running virtual clusters and their VMs."""

from __future__ import annotations

import argparse
import sys
import time

from pcocc_runtime import errors, terminal  # the rest only where it is used: every `pcocc` imports this


def add_ps(parser: argparse.ArgumentParser) -> None:
    """Add the options of `pcocc ps`."""
    parser.description = "Lists your jobs whose VMs are running; squeue lists jobs that wait."
    parser.add_argument("-j", "--job", metavar="JOB", help="only this one")
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("-a", "--all", action="store_true", help="the jobs of all users")
    whose.add_argument("-u", "--user", metavar="USER", help="the jobs of this user")
    parser.add_argument(
        "-l", "--long", action="store_true",
        help="a line for each VM of your jobs: its node, address, the ports of the node that lead to it, what it"
        " uses, its image, and since when it is in which state",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.add_argument("--names", action="store_true", help="only the names of VMs, vmN.JOB, one per line")
    parser.set_defaults(run=_ps)


def add_top(parser: argparse.ArgumentParser) -> None:
    """Add the options of `pcocc top`."""
    parser.description = (
        "Shows the CPU time and memory that your VMs use, again and again, until it is interrupted; "
        "only once if the output is not a terminal."
    )
    parser.add_argument("-j", "--job", metavar="JOB", help="only this one")
    parser.add_argument(
        "-d", "--delay", metavar="SECONDS",
        help="time between two updates, each of which runs a step in every job; default: 5",
    )
    parser.set_defaults(run=_top)


def _top(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.documents.node_answer import Usage
    from pcocc_runtime.observe import ps
    from pcocc_runtime.observe.ps_text import render_top
    from pcocc_runtime.system import accounts

    delay = arguments.delay or "5"
    if not (delay.isascii() and delay.isdigit() and 0 < int(delay[:6]) <= 3600):
        raise errors.RequestError(f"{delay!r} is not a number of seconds", "write 1 to 3600")
    before: dict[tuple[str, str], Usage] = {}
    while True:
        vms, silent = ps.list_vms(ps.list_clusters(accounts.user_name(), arguments.job))
        text = render_top(vms, before)
        sys.stdout.write(f"\033[H\033[2J{text}" if sys.stdout.isatty() else text)
        sys.stdout.flush()
        for line in silent:
            terminal.say_error(errors.PcoccError(line))
        if not sys.stdout.isatty():
            return errors.EXIT_FAILURE if silent else 0
        before = {(vm.job, vm.name): vm.usage for vm in vms if vm.usage}
        time.sleep(int(delay))  # until the next picture, as top(1)


def _ps(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.observe import ps
    from pcocc_runtime.observe.ps_text import render_clusters, render_json, render_vms
    from pcocc_runtime.system import accounts

    everybody = arguments.all or (arguments.job and not arguments.user)
    clusters = ps.list_clusters(None if everybody else arguments.user or accounts.user_name(), arguments.job)
    if arguments.names:
        sys.stdout.write("".join(f"vm{rank}.{one.job}\n" for one in clusters for rank in range(one.vms)))
        return 0
    vms, silent = ps.list_vms(clusters) if arguments.long else (None, [])
    if arguments.json:
        sys.stdout.write(render_json(clusters, vms))
    else:
        sys.stdout.write(render_clusters(clusters) if vms is None else render_vms(vms))
    sys.stdout.flush()
    for line in silent:
        terminal.say_error(errors.PcoccError(line))
    return errors.EXIT_FAILURE if silent else 0
