"""Where a save runs: as a step of the VM's job, on the VM's node."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from pcocc_runtime import config, images, naming
from pcocc_runtime.errors import NodeError, RequestError
from pcocc_runtime.repos import Repo
from pcocc_runtime.request import ensure_job_number
from pcocc_runtime.system import files, slurm


def run_step(job: str, vms: str, words: Sequence[str]) -> int:
    """Run a VM operation in VMs of a job of the caller's, with this process's input and output; return srun's status."""
    ensure_job_number(job)
    if not re.fullmatch(r"vm(0|[1-9][0-9]*|\[[0-9,-]+\])(,vm(0|[1-9][0-9]*|\[[0-9,-]+\]))*", vms, re.ASCII):
        raise RequestError(f"{vms[:80]!r} is no set of VMs", "write vm0, or vm[0-3,7]")
    running = slurm.read_running(job)
    if os.geteuid() != running.uid:
        raise RequestError(f"job {job} is {running.user}'s, who alone can save its VMs")
    return slurm.run_vm_step(slurm.operation_argv(running.job, vms, words))


def go_to_node(job: int, vm: str, words: Sequence[str]) -> None:
    """Return on the VM's node; anywhere else become an srun that runs the operation there."""
    cluster = files.read_json(naming.job_dir(job) / "cluster.json")
    if not isinstance(cluster, dict):
        raise NodeError(f"the VMs of job {job} do not run on this node", "they have ended, or are about to boot")
    node = next((name for name, ranks in cluster["nodes"] if int(vm[2:]) in ranks), None)
    here = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
    if node is None:
        raise NodeError(f"nobody knows where {vm} runs")
    if node != here:
        slurm.become_vm_step(slurm.operation_argv(job, vm, words, node))


def load_repos() -> tuple[Repo, ...]:
    """Return the caller's repositories."""
    words = images.path_words(os.environ, images.user_name(), os.path.expanduser("~"))
    return images.read_repos(config.site_dir(os.environ, os.geteuid()), config.user_dir(os.environ), words)
