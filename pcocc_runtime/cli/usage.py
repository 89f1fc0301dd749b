"""`pcocc usage`: what the VMs of a job have used, also of one that has ended."""

from __future__ import annotations

import argparse
import sys


def add_usage(parser: argparse.ArgumentParser) -> None:
    """Add the options of `pcocc usage`."""
    parser.description = (
        "Shows what the VMs of a job have used, from Slurm's accounting: a line for each time they were booted."
    )
    parser.add_argument("job", metavar="JOB", help="its number; JOB_TASK for a task of an array")
    parser.set_defaults(run=_usage)


def _usage(arguments: argparse.Namespace) -> int:
    from pcocc_runtime.cli.usage_text import render_usage  # only where it is used: every `pcocc` imports this
    from pcocc_runtime.slurm.commands import read_usage_of

    sys.stdout.write(render_usage(read_usage_of(arguments.job)))
    return 0
