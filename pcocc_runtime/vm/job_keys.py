"""The ssh keys of a job, always new ones, and those that the guests of its checkpoint know until then."""

from __future__ import annotations

from dataclasses import replace

from pcocc_runtime.documents.boot import KEY_COMMENT, Boot
from pcocc_runtime.documents.cluster import Cluster, encode_cluster
from pcocc_runtime.slurm.text import JobFacts
from pcocc_runtime.terminal import say_note
from pcocc_runtime.vm import ssh_keys
from pcocc_runtime.vm.stored import Stored, find_own, find_stored

_MOST_HOSTS = 8  # former host keys: a guest may not have taken any since


def make_boot(facts: JobFacts, cluster: Cluster) -> Boot:
    """Make the keys of a job; return what its boot step is given, for its cluster or that of its checkpoint.

    A job that was requeued goes on from its own, if it has made one.
    """
    keys = ssh_keys.make_keys(f"{KEY_COMMENT}{facts.job}")
    stored = _find(facts, cluster)
    if stored is None:
        return Boot(encode_cluster(cluster), keys)
    hosts = [stored.keys.host_public, *stored.keys.other_hosts.splitlines()][:_MOST_HOSTS]
    found = replace(stored.cluster, first_job=stored.cluster.first_job or stored.job)
    return Boot(encode_cluster(found), keys._replace(other_hosts="\n".join(hosts)), stored.keys)


def _find(facts: JobFacts, cluster: Cluster) -> Stored | None:
    own = find_own(cluster, facts.job) if cluster.checkpoints is not None and facts.restarts else None
    if own is not None:
        say_note(f"the VMs go on from the checkpoint in {own.cluster.restart}")
        return own
    return find_stored(cluster.restart, cluster) if cluster.restart is not None else None
