"""The task of a VM step: a batch script, an operation on the VM, or a command in it."""

from __future__ import annotations

import os
import sys

from pcocc_runtime.documents.wire import ENV_VM_NAME
from pcocc_runtime.steps.batch import become_batch
from pcocc_runtime.steps.session import AttachError, Session, read_cluster


def main() -> int:
    """Run the task's command in its VM; the return value is the command's exit status."""
    if sys.argv[1:2] == ["--batch"]:
        return become_batch(sys.argv[2], sys.argv[3:])
    if sys.argv[1:2] == ["@netinfo"]:
        from pcocc_runtime.observe import node_task

        return node_task.main(sys.argv[2:])
    if sys.argv[1:2] == ["@save"]:
        from pcocc_runtime.save.task import main

        return main(sys.argv[2:])
    vm = os.environ.get(ENV_VM_NAME, "")
    try:
        return Session(vm, read_cluster(vm)).run(sys.argv[1:])
    except AttachError as error:
        print(error, file=sys.stderr)
        return 1
