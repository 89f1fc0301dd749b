"""The `pcocc` command: the only place that prints and chooses exit codes (0 done, 1 refused or failed, 2
wrong usage)."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Sequence
from typing import NoReturn

from pcocc_runtime import __version__, errors, terminal
from pcocc_runtime.cli.common import complain
from pcocc_runtime.cli.config import add_config
from pcocc_runtime.cli.image import add_parsers
from pcocc_runtime.cli.network import add_network
from pcocc_runtime.cli.node import add_node
from pcocc_runtime.cli.ps import add_ps
from pcocc_runtime.cli.save import add_save
from pcocc_runtime.cli.template import add_template

Command = Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors read like all others."""

    def error(self, message: str) -> NoReturn:
        terminal.say(f"pcocc: error: {message}\nhint: {self.prog} --help\n")
        raise SystemExit(errors.EXIT_USAGE)


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
    add_network(groups.add_parser("network", help="the networks of a running job"))
    add_node(groups.add_parser("node", help="whether a node has what VMs need, for its administrator"))
    add_config(groups.add_parser("config", help="the site's configuration, for its administrator"))
    return parser
