"""VMs that run from their node's copies of an image, in real jobs."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.box import STATE, Box
from tests.boot.cluster import make_cluster
from tests.waiting import wait_for

PREFIX = "/opt/pcocc"
SHARED, CACHE, SOCKET = f"{STATE}/images/shared", "/var/lib/pcocc/images", "/run/pcocc/cache.socket"
CONFIG = "/etc/pcocc/pcocc.yaml"
ENVIRON = {"PCOCC_USER_CONF_DIR": f"{SHARED}/conf"}


@pytest.fixture
def cached(box: Box) -> Iterator[str]:
    """A site with image caches, and the name of an image that everybody may read."""
    do = (
        f"mkdir -p {SHARED}/conf; chmod 755 {SHARED}; printf 'repos: [{{name: shared, path: {SHARED}/repo}}]\\n'"
        f" >{SHARED}/conf/repos.yaml; "
    )
    do += (
        f"chown -R alice: {SHARED}; cp -p {CONFIG} {SHARED}/saved; printf 'image-cache: {{size: 4G, directory:"
        f" {CACHE}}}\\n' >>{CONFIG}"
    )
    with box.changed(do, f"cp -p {SHARED}/saved {CONFIG}; rm -rf {SHARED}", node="n1"):
        box.run(["pcocc", "image", "import", f"{STATE}/images/tiny.qcow2", "copied"], env=ENVIRON, status=0)
        yield "copied"


def layers_of(box: Box, job: int) -> list[set[str]]:
    """Return the layers that each QEMU of a job has open."""
    found = []
    for one in box.qemus(job).values():
        links = [os.readlink(path) for path in Path(f"/proc/{one.pid}/fd").iterdir()]
        found.append({link for link in links if "/data/" in link and not link.startswith(SHARED)})
    return found


def test_the_vms_of_a_job_share_a_copy_of_its_own(box: Box, cached: str) -> None:
    with make_cluster(box, "--pcocc-template=tiny:3", "-N1", "-wn1", f"--pcocc-image=shared:{cached}", env=ENVIRON) as cluster:
        used = layers_of(box, cluster.job)
        assert len(used) == 3 and used[0] == used[1] == used[2]
        assert [f"/scratch/pcocc/{cluster.job}/layers/data/" in path for path in used[0]] == [True]
    box.ensure_released(cluster.job, 20)


def test_all_jobs_share_a_copy_where_the_service_runs(box: Box, cached: str) -> None:
    service = f"setpriv --reuid=nobody --regid=nogroup --clear-groups {PREFIX}/libexec/pcocc/cache"
    do = f"mkdir -p {CACHE} /run/pcocc; chmod 755 {CACHE}; chown nobody: {CACHE}; "
    do += f"systemd-socket-activate --accept --inetd -l {SOCKET} {service} >/dev/null 2>&1 & echo $! >/run/cache.pid; "
    do += f"while ! [ -S {SOCKET} ]; do sleep 0.1; done; chmod 666 {SOCKET}"
    with box.changed(do, f"kill $(cat /run/cache.pid); rm -rf {CACHE} {SOCKET} /run/cache.pid", node="n1"):
        seen = []
        for _ in range(2):
            with make_cluster(
                box, "--pcocc-template=tiny", "-N1", "-wn1", f"--pcocc-image=shared:{cached}", env=ENVIRON
            ) as cluster:
                [used] = wait_for(lambda: layers_of(box, cluster.job), "QEMU")
                seen.append({(path, box.root("n1", path).stat().st_ino) for path in used})
        assert seen[0] == seen[1] and len(seen[0]) == 1 and all(path.startswith(f"{CACHE}/data/") for path, _inode in seen[0])
