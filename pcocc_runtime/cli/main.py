"""The `pcocc` command: the only place that prints and chooses exit codes (0 done, 1 refused or failed, 2
wrong usage)."""

from __future__ import annotations

import argparse
import re
import signal
from collections.abc import Callable, Sequence
from typing import NoReturn

from pcocc_runtime import __version__, errors, terminal
from pcocc_runtime.cli.common import complain
from pcocc_runtime.cli.config import add_config
from pcocc_runtime.cli.getting_in import (
    add_ansible_inventory,
    add_forward,
    add_rsync,
    add_scp,
    add_ssh,
    add_ssh_config,
)
from pcocc_runtime.cli.image import add_parsers
from pcocc_runtime.cli.looking import add_console, add_log, add_screenshot
from pcocc_runtime.cli.nc import add_nc
from pcocc_runtime.cli.network import add_network
from pcocc_runtime.cli.node import add_node
from pcocc_runtime.cli.operating import add_agent, add_dump, add_monitor, add_power, add_qmp, add_reset
from pcocc_runtime.cli.ps import add_ps
from pcocc_runtime.cli.save import add_save
from pcocc_runtime.cli.template import add_template

_OWN_OPTION = re.compile(r"-h|--help|-j.+|--job=.*", re.DOTALL)

Command = Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors read like all others.

    A verb that `passes` words on to another program has its own options first: whatever follows them is the other's.
    """

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Return the arguments, and the words that are too many."""
        if args is None or not self.get_default("passes"):
            return super().parse_known_args(args, namespace)
        count = _count_own(args)
        found, more = super().parse_known_args(args[:count], namespace)
        found.words = list(args[count:])
        return found, more

    def error(self, message: str) -> NoReturn:
        terminal.say(f"pcocc: error: {message}\nhint: {self.prog} --help\n")
        raise SystemExit(errors.EXIT_USAGE)


def _count_own(words: Sequence[str]) -> int:
    """Return how many of the first words are pcocc's own options."""
    count = 0
    while count < len(words) and (words[count] in ("-j", "--job") or _OWN_OPTION.fullmatch(words[count])):
        count += 2 if words[count] in ("-j", "--job") else 1
    return min(count, len(words))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    terminal.ensure_open()
    try:
        status = _run(argv)
        return terminal.finish_output() or status
    except SystemExit as end:  # argparse's, or a signal's
        failed = terminal.finish_output()
        raise SystemExit(end.code or failed) from None
    except KeyboardInterrupt:
        return 130


def _run(argv: Sequence[str] | None) -> int:
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # which libexec/pcocc.in sets for the start
            signal.signal(signal.SIGINT, signal.default_int_handler)
        arguments = _parse(argv)
        run: Command = arguments.run
        return run(arguments)
    except errors.PcoccError as error:
        return complain([error])
    except BrokenPipeError:
        return errors.EXIT_FAILURE
    except OSError as error:
        return terminal.finish_output() or complain(
            [errors.PcoccError(f"{error.filename or 'pcocc'}: {error.strerror}")]
        )
    except Exception as error:  # the outermost layer
        return complain([terminal.confess(error)])


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments; a verb may have its own hint for words that are too many (`explain`)."""
    parser = _parser()
    arguments, more = parser.parse_known_args(argv)
    if more:
        hint = arguments.explain(arguments, more) if "explain" in arguments else None
        terminal.say(
            f"pcocc: error: unrecognized arguments: {' '.join(more)}\nhint:"
            f" {hint or f'{parser.prog} --help'}\n"
        )
        raise SystemExit(errors.EXIT_USAGE)
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pcocc", description="Virtual clusters of VMs as ordinary Slurm jobs.",
        epilog="Jobs are made with Slurm's own commands: sbatch --pcocc-template=TPL:N job.sh, then srun --pcocc-vm"
        " COMMAND in it; their options are in 'sbatch --help' and 'srun --help'.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"pcocc {__version__}")
    groups = parser.add_subparsers(metavar="COMMAND", required=True)
    add_template(groups.add_parser("template", help="the VM templates you can use"))
    add_parsers(
        groups.add_parser("image", help="the images VMs boot from, and the repositories that keep them")
    )
    add_save(groups.add_parser("save", help="save the disk of a running VM as an image"))
    add_ps(groups.add_parser("ps", help="the running virtual clusters and their VMs"))
    add_ssh(groups.add_parser("ssh", help="log into a VM"))
    add_scp(groups.add_parser("scp", help="copy files from and to VMs"))
    add_rsync(groups.add_parser("rsync", help="copy what differs from and to VMs"))
    add_nc(groups.add_parser("nc", help="connect to a TCP port of a VM"))
    add_forward(groups.add_parser("forward", help="make a port of this host one of a VM"))
    add_ssh_config(
        groups.add_parser("ssh-config", help="what ssh and other programs need to reach the VMs of a job")
    )
    add_ansible_inventory(groups.add_parser("ansible-inventory", help="the VMs of a job for Ansible"))
    add_console(groups.add_parser("console", help="the serial console of a VM"))
    add_log(groups.add_parser("log", help="what a VM has written to its serial console"))
    add_screenshot(groups.add_parser("screenshot", help="what the display of a VM shows"))
    add_reset(groups.add_parser("reset", help="reset VMs"))
    add_power(groups.add_parser("power", help="power VMs off"))
    add_monitor(groups.add_parser("monitor", help="QEMU's own monitor"))
    add_qmp(groups.add_parser("qmp", help="say a message of QMP to QEMU"))
    add_agent(groups.add_parser("agent", help="ask the agent of a guest"))
    add_dump(groups.add_parser("dump", help="write the memory of a VM for crash(8)"))
    add_network(groups.add_parser("network", help="the networks of a running job"))
    add_node(groups.add_parser("node", help="whether a node has what VMs need, for its administrator"))
    add_config(groups.add_parser("config", help="the site's configuration, for its administrator"))
    return parser
