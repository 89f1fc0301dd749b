"""The task of a VM step: a batch script, an operation on the VM, or a command in it."""

from __future__ import annotations

import sys

from pcocc_runtime.steps.session import run_command


def main() -> int:
    """Run the task's command in its VM; the return value is the command's exit status."""
    words = sys.argv[1:]
    if words[0] == "--batch":
        from pcocc_runtime.steps.batch import become_batch

        return become_batch(words[1], words[2:])
    if words[0].startswith("@"):
        from pcocc_runtime.steps.operations import run_operation

        return run_operation(words)
    return run_command(words)
