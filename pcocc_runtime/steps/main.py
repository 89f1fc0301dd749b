"""The task of a VM step: a batch script, an operation on the VM, or a command in it."""

from __future__ import annotations

import os
import sys

from pcocc_runtime.documents.wire import ENV_STEP_VMS, ENV_VM_NAME
from pcocc_runtime.documents.wire_steps import ENV_FIRST_WORD
from pcocc_runtime.steps.session import run_command


def main() -> int:
    """Run the task's command in its VM; the return value is the command's exit status."""
    words = sys.argv[1:]
    first = os.environ.pop(ENV_FIRST_WORD, None)
    if first is not None:
        words.insert(0, first)
    if ENV_STEP_VMS not in os.environ:  # no VM step: a batch script
        from pcocc_runtime.steps.batch import become_batch

        return become_batch(os.environ[ENV_VM_NAME], words)
    if words[0].startswith("@"):
        from pcocc_runtime.steps.operations import run_operation

        return run_operation(words)
    return run_command(words)
