"""Operations on VMs: commands that begin with '@'."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pcocc_runtime import naming
from pcocc_runtime.errors import NodeError
from pcocc_runtime.slurm.steps import become_vm_step, operation_argv
from pcocc_runtime.steps.session import find_members


def go_to_node(job: int, vm: str, words: Sequence[str]) -> None:
    """Return on the VM's node; anywhere else become an srun that runs the operation there."""
    try:
        members = find_members(str(naming.job_dir(job)))
    except ValueError as error:
        raise NodeError(str(error), "are all nodes of one version of pcocc?") from None
    if members is None:
        raise NodeError(f"the VMs of job {job} do not run on this node", "they have ended, or are about to boot")
    node = members.find_node(int(vm[2:]))
    here = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
    if node is None:
        raise NodeError(f"nobody knows where {vm} runs")
    if node != here:
        become_vm_step(operation_argv(job, vm, words, node))
