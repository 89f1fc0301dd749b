"""The operation `@save`: runs on the VM's node, as the VM's user."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pcocc_runtime import errors, naming, terminal
from pcocc_runtime.documents.verbs import SAVE_VERB
from pcocc_runtime.images.repositories import load_own_repos
from pcocc_runtime.images.sizes import render_size
from pcocc_runtime.save import clean
from pcocc_runtime.save.moment import read_vm
from pcocc_runtime.save.options import add_options, ensure_boot_disk, one_name
from pcocc_runtime.save.save import SaveOptions, save_vm


class _WordsParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"pcocc: error: {SAVE_VERB}: {message}\nhint: pcocc save --help\n")
        raise SystemExit(errors.EXIT_USAGE)


def check_words(words: Sequence[str]) -> SaveOptions:
    """Return what the words ask for; a request that makes no sense for several tasks of one step is refused here."""
    parser = _WordsParser(prog=f"srun --pcocc-vm=VMS {SAVE_VERB}", description="What 'pcocc save' runs.")
    add_options(parser)
    asked = parser.parse_args(words)
    if asked.dest is not None and int(os.environ.get("SLURM_STEP_NUM_TASKS") or "1") > 1:
        raise one_name(asked.dest)
    ensure_boot_disk(asked.clean, asked.drive)
    return SaveOptions(asked.dest, asked.drive, asked.full, asked.safe, asked.clean)


def operate(job: int, vm: str, options: SaveOptions) -> int:
    """Save the VM, which runs on this node."""
    with terminal.Meter() as meter:
        it = read_vm(vm, Path(naming.job_dir(job) / vm))
        with clean.put_aside(it, meter.note) if options.clean else contextlib.nullcontext():
            found, size = save_vm(it, options, load_own_repos(), meter.begin, meter.note)
        # once for all VMs of the step
        if not options.drive and os.environ.get("SLURM_PROCID") in (None, "0"):
            meter.note(clean.CLEANED if options.clean else clean.KEPT)
    sys.stdout.write(f"saved {vm} as {found.reference} ({render_size(size)})\n")
    return 0
