"""The ssh keys of a job: new ones, or those that the guests of a checkpoint know, with the cluster as it was stored."""

from __future__ import annotations

from pcocc_runtime.documents.boot import KEY_COMMENT, Keys
from pcocc_runtime.documents.cluster import Cluster
from pcocc_runtime.slurm.text import JobFacts
from pcocc_runtime.terminal import say_note
from pcocc_runtime.vm import ssh_keys
from pcocc_runtime.vm.stored import find_own, find_stored


def choose_keys(facts: JobFacts, cluster: Cluster) -> tuple[Cluster, Keys]:
    """Return the cluster and the keys of its job: new ones, or those that the guests of its checkpoint know.

    A job that was requeued goes on from its own, if it has made one.
    """
    own = find_own(cluster, facts.job) if cluster.checkpoints is not None and facts.restarts else None
    if own is not None:
        say_note(f"the VMs go on from the checkpoint in {own[0].restart}")
        return own
    if cluster.restart is None:
        return cluster, ssh_keys.make_keys(f"{KEY_COMMENT}{facts.job}")
    return find_stored(cluster.restart, cluster)
