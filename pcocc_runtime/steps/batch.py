"""The batch script in a VM: sbatch's own task becomes an srun, whose task, an operation, runs the script there.

The script gets its job's variables of Slurm, as on a node: that srun passes them on as data, and is not affected
by them itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from pcocc_runtime.documents import wire, wire_steps
from pcocc_runtime.documents.batch_environment import BatchEnvironment, encode_batch_environment
from pcocc_runtime.documents.verbs import BATCH_VERB
from pcocc_runtime.guest.environment import plan_environment
from pcocc_runtime.steps.environment import take_environment_before
from pcocc_runtime.steps.session import run_command

# those that the srun itself needs: a user's settings for other steps, such as SLURM_LABELIO, must not affect it
_FOR_SRUN = (
    "SLURM_JOB_ID", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_EXPORT_ENV", wire.ENV_CLUSTER,
    wire.ENV_TEMPLATE,
)
_OF_A_SCRIPT = "ENVIRONMENT"  # Slurm sets it to BATCH for a batch script


def become_batch(vm: str, argv: Sequence[str]) -> int:
    """Turn the batch task into an srun that runs the batch script in a VM (and boots the cluster before)."""
    words = [
        "srun", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={os.environ['SLURMD_NODENAME']}",
        f"--{wire_steps.OPTION_VM}={vm}",
        "--mem=0", "--job-name=pcocc-batch", "--quiet", BATCH_VERB, *argv,
    ]  # fmt: skip
    found = plan_environment(take_environment_before(), os.environ, None)
    mine = {
        name: value for name, value in os.environ.items() if name in found.settings or name == _OF_A_SCRIPT
    }
    mine.pop(wire.ENV_VM_NAME, None)
    environ = {
        name: value
        for name, value in os.environ.items()
        if name in _FOR_SRUN or not name.startswith(("SLURM_", "SRUN_", "PCOCC_"))
    }
    handed = encode_batch_environment(BatchEnvironment(mine, list(found.removed)))
    environ |= {wire.ENV_STEP_INSIDE: "1", wire_steps.ENV_BATCH_ENVIRON: handed}
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
