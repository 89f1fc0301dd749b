"""The batch script in a VM: sbatch's own task becomes an srun, whose task, an operation, runs the script there."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from pcocc_runtime.documents.verbs import BATCH_VERB
from pcocc_runtime.documents.wire import ENV_STEP_INSIDE, OPTION_VM
from pcocc_runtime.steps.session import run_command


def become_batch(vm: str, argv: Sequence[str]) -> int:
    """Turn the batch task into an srun that runs the batch script in a VM (and boots the cluster before)."""
    words = [
        "srun", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={os.environ['SLURMD_NODENAME']}", f"--{OPTION_VM}={vm}",
        "--job-name=pcocc-batch", "--quiet", BATCH_VERB, *argv,
    ]  # fmt: skip
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_NTASKS", "SLURM_NPROCS"))}
    environ[ENV_STEP_INSIDE] = "1"
    try:
        os.execvpe(words[0], words, environ)
    except OSError as error:
        print(f"pcocc: error: srun cannot be started on this node: {error}", file=sys.stderr)
    return 1


def check_words(words: Sequence[str]) -> Sequence[str]:
    """Return the batch script's path on this node, and its arguments."""
    return words


def operate(_job: int, _vm: str, words: Sequence[str]) -> int:
    """Run the batch script in the VM."""
    return run_command(words, script=True)
