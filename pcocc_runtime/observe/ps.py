"""What `pcocc ps` lists: jobs from Slurm, their VMs from the jobs' nodes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pcocc_runtime.documents.node_answer import SHOW
from pcocc_runtime.errors import PcoccError, RequestError
from pcocc_runtime.observe.ask import ask_nodes
from pcocc_runtime.observe.ps_text import UNKNOWN, ListedVm, VirtualCluster, plan_vms
from pcocc_runtime.slurm.commands import list_running
from pcocc_runtime.slurm.text import ensure_job_number
from pcocc_runtime.system import accounts

_AT_ONCE = 8  # jobs that are asked, each with a step of its own


def list_clusters(user: str | None, job: str | None) -> list[VirtualCluster]:
    """Return the jobs whose VMs run, of a user or of all; RequestError when `job` is not among them."""
    if job is not None:
        ensure_job_number(job)
    unknown = next(
        (
            name
            for name in (user or "").split(",")
            if name and not name.isdigit() and not accounts.user_exists(name)
        ),
        None,
    )
    if unknown:
        raise RequestError(f"there is no user {unknown!r}", "'pcocc ps -a' lists the jobs of all users")
    every = list_running(user)
    if job is not None:
        every = tuple(one for one in every if job in (str(one.job), one.label, one.label.partition("_")[0]))
        if not every:
            raise RequestError(
                f"job {job} has no running VMs",
                "the first 'srun --pcocc-vm' in a job boots its VMs; 'pcocc ps' lists yours",
            )
    return [
        VirtualCluster(one.label, one.name, one.user, one.partition, one.vms, one.used, one.nodes)
        for one in every
    ]


def list_vms(clusters: Sequence[VirtualCluster]) -> tuple[list[ListedVm], list[str]]:
    """Ask the nodes of these jobs for their VMs; return the VMs, and a sentence for each node without an answer.

    RequestError when a job is somebody else's. A job that has ended meanwhile is left out.
    """
    caller = accounts.user_name()
    other = next((one for one in clusters if one.user != caller), None)
    if other and os.geteuid() != 0:
        raise RequestError(
            f"job {other.job} is {other.user}'s, and only that user and root can look into it", "leave -l out"
        )
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = list(zip(clusters, pool.map(_ask, clusters), strict=True))
    missing = any(silent for _cluster, (_vms, silent) in answers)
    left = {one.label for one in list_running(None)} if missing else set()
    silences = [line for cluster, (_vms, silent) in answers if cluster.job in left for line in silent]
    return [vm for _cluster, (vms, _silent) in answers for vm in vms], silences


def _ask(cluster: VirtualCluster) -> tuple[list[ListedVm], list[str]]:
    try:
        answers = ask_nodes(cluster.job, [SHOW])
    except PcoccError as error:
        return [], [f"job {cluster.job}: {error.message}"]
    vms = plan_vms(cluster.job, answers.nodes)  # a node whose VMs have all ended has nothing of the job
    missing = [name for name in answers.silent if any(vm.node == name and vm.state == UNKNOWN for vm in vms)]
    return vms, [f"job {cluster.job}: no answer from {name}" for name in missing]
