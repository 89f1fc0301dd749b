"""Operations on VMs: commands that begin with '@'."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pcocc_runtime import naming
from pcocc_runtime.errors import NodeError
from pcocc_runtime.slurm.steps import become_vm_step, operation_argv
from pcocc_runtime.system import files


def go_to_node(job: int, vm: str, words: Sequence[str]) -> None:
    """Return on the VM's node; anywhere else become an srun that runs the operation there."""
    cluster = files.read_json(naming.job_dir(job) / "cluster.json")
    if not isinstance(cluster, dict):
        raise NodeError(f"the VMs of job {job} are not running on this node", "they have ended, or are about to boot")
    node = next((name for name, ranks in cluster["nodes"] if int(vm[2:]) in ranks), None)
    here = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
    if node is None:
        raise NodeError(f"nobody knows where {vm} runs")
    if node != here:
        become_vm_step(operation_argv(job, vm, words, node))
