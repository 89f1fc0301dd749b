"""Partition keys as licences of a real slurmctld: who gets them, and that users who ask for another one are refused."""

import re
from collections.abc import Iterator

import pytest

from tests.boot.box import Box
from tests.boot.cluster import make_cluster
from tests.waiting import wait_for

SETTINGS = {
    "networks": "ib: {type: infiniband, settings: {host-device: mlx5_0, min-pkey: '0x2000', max-pkey: '0x2002'}}",
    "resources": "fabric: {networks: [default, ib]}",
    "templates": "fabric: {inherits: tiny, resource-set: fabric}",
}
KEYS = {f"pkey200{digit}" for digit in range(3)}
CONF = "/etc/slurm/slurm.conf"
_RELOAD = "/opt/pcocc/bin/pcocc config policy >/dev/null && touch /etc/slurm/job_submit.lua"


@pytest.fixture(scope="module", autouse=True)
def fabric(box: Box) -> Iterator[str]:
    """A site with three partition keys; what `pcocc config check` says before slurm.conf has them."""
    files = [f"/etc/pcocc/{name}.yaml" for name in SETTINGS]
    keep = " && ".join(f"cp -p {file} {file}.kept" for file in files)
    add = " && ".join(f'echo "{line}" >>/etc/pcocc/{name}.yaml' for name, line in SETTINGS.items())
    back = "; ".join(f"cat {file}.kept >{file}; rm {file}.kept" for file in files)
    with box.changed(f"{keep} && {add} && {_RELOAD}", f"{back}; {_RELOAD}"):
        said = box.run("/opt/pcocc/bin/pcocc config check", user="root", status=0).stderr
        line = re.search(r"Licenses=\S+", said)
        assert line, said
        do = f"cp -p {CONF} {CONF}.kept && echo '{line[0]}' >>{CONF} && scontrol reconfigure"
        with box.changed(do, f"cat {CONF}.kept >{CONF}; rm {CONF}.kept; scontrol reconfigure"):
            yield said


def submit(box: Box, user: str, *words: str) -> int:
    options = ["-N1", "--mem=64M", "--gres=nic:1", *words]
    return int(box.out(["sbatch", "--parsable", *options, "--wrap", "sleep 600"], user=user))


def read(box: Box, job: int, field: str) -> str:
    found = re.search(rf" {field}=(\S*)", box.out(f"scontrol -o show job {job}", user="root"))
    return found[1] if found else ""


@pytest.fixture
def clusters(box: Box) -> Iterator[list[int]]:
    """Two running jobs, one of alice's and one of bob's, each with a cluster on the fabric."""
    jobs = [submit(box, user, "--pcocc-template=fabric") for user in ("alice", "bob")]
    for job in jobs:
        wait_for(lambda job=job: read(box, job, "JobState") == "RUNNING", f"job {job} does not run")
    yield jobs
    box.run(["scancel", *map(str, jobs)], user="root")
    for job in jobs:
        box.ensure_released(job)


def test_config_check_says_what_to_add_and_nothing_when_it_is_there(box: Box, fabric: str) -> None:
    assert "slurm.conf lacks licences for the keys of network ib; add to it: Licenses=pkey2000,pkey2001,pkey2002\n" in fabric
    assert "icence" not in box.run("/opt/pcocc/bin/pcocc config check", user="root", status=0).stderr


def test_two_clusters_have_two_keys_and_a_fourth_waits(box: Box, clusters: list[int]) -> None:
    first, second = (read(box, job, "Licenses").partition(":")[0] for job in clusters)
    assert first != second and {first, second} < KEYS
    more = [submit(box, "alice", "--pcocc-template=fabric") for _ in range(2)]
    try:
        wait_for(lambda: "RUNNING" in [read(box, job, "JobState") for job in more], "the third key is not given out")
        wait_for(lambda: "Licenses" in [read(box, job, "Reason") for job in more], "the fourth job does not wait for a key")
    finally:
        box.run(["scancel", *map(str, more)], user="root")


def test_nobody_drops_or_changes_a_key(box: Box, clusters: list[int]) -> None:
    alices, bobs = clusters
    has = read(box, alices, "Licenses")
    for wish in ("", read(box, bobs, "Licenses"), "pkey2002"):
        done = box.run(["scontrol", "update", f"jobid={alices}", f"licenses={wish}"])
        assert done.returncode != 0 and read(box, alices, "Licenses") == has
    box.out(["scontrol", "update", f"jobid={alices}", "comment=other"])  # everything else may be changed


@pytest.mark.parametrize("more", [[], ["--pcocc-template=tiny"], ["--pcocc-template=fabric"]])
def test_nobody_asks_for_a_key(box: Box, more: list[str]) -> None:
    before = box.job_count()
    done = box.run(["sbatch", "-L", "pkey2001", *more, "--wrap", "true"])
    assert done.returncode != 0 and "the licence 'pkey2001' is the key of a partition" in done.stderr
    assert box.job_count() == before


def test_a_node_without_the_device_says_so(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=fabric", "-N1", "--gres=nic:1", boot=False) as cluster:
        done = cluster.srun("--pcocc-vm true")
        assert done.returncode != 0
        assert re.search(r"pcocc: error: n\d has no InfiniBand device mlx5_0\n", done.stderr), done.stderr
    box.ensure_released(cluster.job)
