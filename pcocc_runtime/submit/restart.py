"""The cluster of a job that goes on from a checkpoint: the one that was stored, checked again."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from pcocc_runtime.documents.boot import decode_boot
from pcocc_runtime.documents.checkpoint import BOOT_COPY, CURRENT, WHOLE_FILE, damaged, decode_checkpoint
from pcocc_runtime.documents.cluster import Cluster, decode_cluster
from pcocc_runtime.errors import RequestError
from pcocc_runtime.system import user_files
from pcocc_runtime.system.copy import begin_sum

if TYPE_CHECKING:
    from pcocc_runtime.site.resource_sets import ResourceSet
    from pcocc_runtime.site.site import Site

_LONGEST = 1 << 24  # bytes of such a file


def read_cluster_of(directory: str) -> Cluster:
    """Return the cluster of the checkpoint in a directory, from which it will go on; RequestError if it cannot."""
    place = f"{directory}/{CURRENT}"
    with user_files.explaining(directory, "the checkpoint"):
        names = os.listdir(directory)
    if CURRENT not in names:
        raise RequestError(f"{directory} is no checkpoint: it has no {CURRENT}", "'pcocc checkpoint DIR' makes one")
    data = user_files.read_user_start(f"{place}/{WHOLE_FILE}", _LONGEST, "the checkpoint's file")
    whole = decode_checkpoint(data, f"{place}/{WHOLE_FILE}")
    boot = user_files.read_user_start(f"{place}/{BOOT_COPY}", _LONGEST, "the checkpoint's file")
    machine = begin_sum()
    machine.update(boot)
    if (BOOT_COPY, machine.hexdigest()) not in {(one.name, one.sha256) for one in whole.files}:
        raise damaged(f"{place}/{BOOT_COPY}", "its content is not what was stored")
    cluster = decode_cluster(decode_boot(boot.decode(errors="replace")).cluster)
    if cluster.vm_count != whole.vms:
        raise damaged(f"{place}/{WHOLE_FILE}", "it has another number of VMs than the cluster that was stored")
    return replace(cluster, restart=directory)


def find_sets(cluster: Cluster, site: Site) -> list[ResourceSet]:
    """Return the resource sets of a cluster; RequestError when the site no longer has one of them."""
    names = list(dict.fromkeys(group.resource_set for group in cluster.groups))
    for name in names:
        if name not in site.all_sets:
            hint = "see 'pcocc template list', or ask the admins"
            raise RequestError(f"this site no longer has resource set {name!r}, which the checkpoint needs", hint)
    return [site.all_sets[name] for name in names]
