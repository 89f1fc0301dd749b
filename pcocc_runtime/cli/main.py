"""The `pcocc` command: it alone prints, and chooses exit codes (0 done, 1 refused or failed, 2 wrong usage)."""

from __future__ import annotations

import argparse
import importlib
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from pcocc_runtime import __version__, errors, terminal
from pcocc_runtime.cli.former import find_former_command, find_former_option

_OWN_OPTION = re.compile(r"-h|--help|-j.+|--job=.*", re.DOTALL)

# each command's module in this room, the function there that adds its words, and its help;
# only the module of the command that is typed is imported
COMMANDS = {
    "template": ("template", "add_template", "the VM templates you can use"),
    "image": ("image", "add_parsers", "the images VMs boot from, and the repositories that keep them"),
    "save": ("save", "add_save", "save the disk of a running VM as an image"),
    "checkpoint": ("checkpoint", "add_checkpoint", "store all VMs of a job, for a later one to go on from"),
    "ps": ("ps", "add_ps", "the running virtual clusters and their VMs"),
    "top": ("ps", "add_top", "what VMs use of CPU and memory"),
    "usage": ("usage", "add_usage", "what the VMs of a job have used, also when it has ended"),
    "ssh": ("getting_in", "add_ssh", "log into a VM"),
    "scp": ("getting_in", "add_scp", "copy files from and to VMs"),
    "rsync": ("getting_in", "add_rsync", "copy files that differ from and to VMs"),
    "nc": ("nc", "add_nc", "connect to a TCP port of a VM"),
    "forward": ("getting_in", "add_forward", "forward a port of this host to a VM"),
    "ssh-config": ("getting_in", "add_ssh_config", "what ssh and other programs need to reach the VMs of a job"),
    "ansible-inventory": ("getting_in", "add_ansible_inventory", "the VMs of a job for Ansible"),
    "console": ("looking", "add_console", "the serial console of a VM"),
    "log": ("looking", "add_log", "what a VM has written to its serial console"),
    "screenshot": ("looking", "add_screenshot", "what the display of a VM shows"),
    "display": ("display", "add_display", "the display of a VM in a viewer"),
    "reset": ("operating", "add_reset", "reset VMs"),
    "power": ("operating", "add_power", "power VMs off"),
    "monitor": ("operating", "add_monitor", "QEMU's own monitor"),
    "qmp": ("operating", "add_qmp", "send a QMP message to QEMU"),
    "agent": ("operating", "add_agent", "send a command to the agent of a guest"),
    "dump": ("operating", "add_dump", "write the memory of a VM for crash(8)"),
    "disk": ("disk", "add_disk", "persistent drives of running VMs"),
    "mount": ("mount", "add_mount", "give running VMs directories of the host"),
    "umount": ("mount", "add_umount", "take such directories back"),
    "topology": ("operating", "add_topology", "the CPUs and memory that VMs hold, beside what guests see"),
    "network": ("network", "add_network", "the networks of a running job"),
    "node": ("node", "add_node", "whether a node has what VMs need, for its administrator"),
    "config": ("config", "add_config", "the site's configuration, for its administrator"),
}

_Command = Callable[[argparse.Namespace], int]


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
        run: _Command = arguments.run
        return run(arguments)
    except errors.PcoccError as error:
        return _complain(error)
    except BrokenPipeError:
        return errors.EXIT_FAILURE
    except OSError as error:
        problem = errors.PcoccError(f"{error.filename or 'pcocc'}: {error.strerror}")
        return terminal.finish_output() or _complain(problem)
    except Exception as error:  # the outermost layer
        return _complain(terminal.confess(error))


def _complain(problem: errors.PcoccError) -> int:
    sys.stdout.flush()
    terminal.say_error(problem)
    return errors.EXIT_FAILURE


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments; a verb may have its own hint for words that are too many (`explain`)."""
    words = list(sys.argv[1:] if argv is None else argv)
    former = None if words and words[0] in COMMANDS else find_former_command(words)
    if former:
        terminal.say(f"pcocc: error: there is no command '{words[0]}'\nhint: {former}\n")
        raise SystemExit(errors.EXIT_USAGE)
    parser = _parser(words[0] if words and words[0] in COMMANDS else None)
    arguments, more = parser.parse_known_args(argv)
    if more:
        hint = arguments.explain(arguments, more) if "explain" in arguments else None
        hint = hint or find_former_option(words[0] if words else "", more)
        terminal.say(
            f"pcocc: error: unrecognized arguments: {' '.join(more)}\nhint:"
            f" {hint or f'{parser.prog} --help'}\n"
        )
        raise SystemExit(errors.EXIT_USAGE)
    return arguments


def _parser(typed: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all commands, or of one that is typed: then the others have no words of their own."""
    parser = _Parser(
        prog="pcocc", description="Virtual clusters of VMs as ordinary Slurm jobs.",
        epilog="Jobs are made with Slurm's own commands: sbatch --pcocc-template=TPL:N job.sh, then srun --pcocc-vm"
        " COMMAND in it; their options are in 'sbatch --help' and 'srun --help'.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"pcocc {__version__}")
    groups = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (module, function, text) in COMMANDS.items():
        one = groups.add_parser(name, help=text)
        if typed in (None, name):
            getattr(importlib.import_module(f"pcocc_runtime.cli.{module}"), function)(one)
    return parser
