"""The batch script in a VM: sbatch's own task becomes an srun that runs it there."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from pcocc_runtime.documents.wire import OPTION_VM


def become_batch(vm: str, argv: Sequence[str]) -> int:
    """Turn the batch task into an srun that runs the batch script in a VM (and boots the cluster before)."""
    words = [
        "srun", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={os.environ['SLURMD_NODENAME']}", f"--{OPTION_VM}={vm}",
        "--job-name=pcocc-batch", "--quiet", "@batch", *argv,
    ]  # fmt: skip
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_NTASKS", "SLURM_NPROCS"))}
    try:
        os.execvpe(words[0], words, environ)
    except OSError as error:
        print(f"pcocc: error: srun cannot be started on this node: {error}", file=sys.stderr)
    return 1
