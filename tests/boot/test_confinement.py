"""A site chooses to what Slurm confines tasks: VMs run with each choice, and are confined in that way."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime.system.cgroups import parse_step_group
from tests.boot.box import NODES, ROOT, Box
from tests.boot.cluster import make_cluster
from tests.waiting import limit, wait_for

pytestmark = pytest.mark.alone  # its daemons start anew with another configuration
COUNTED = "/dev/full"  # which stands for a GPU in tests/boxlib/etc/gres.conf


def configure(*words: str) -> None:
    """Bring the box up with another configuration."""
    argv = [ROOT / "tests/box", "up", "--no-build", "--cpus", "8", *words]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit(120), check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module", params=["devices", "disabled"])
def cgroups(request: pytest.FixtureRequest, box: Box) -> Iterator[str]:
    """A cluster whose Slurm confines tasks to devices, too; or to nothing."""
    configure("--cgroups", request.param)
    yield request.param
    configure()


def test_vms_run_and_nothing_of_them_is_left(box: Box, cgroups: str) -> None:
    with make_cluster(box, "--pcocc-template=tiny:2", "-N2") as cluster:
        assert cluster.vm("hostname", "vm[0-1]").split() in (["vm0", "vm1"], ["vm1", "vm0"])
        step = int(cluster.boot_step().partition(".")[2])
        groups = [parse_step_group(qemu.read("cgroup"), cluster.job, step) for qemu in cluster.qemus().values()]
        assert len(groups) == 2 and (None in groups) == (cgroups == "disabled"), groups
        found = box.run("pcocc node check", user="root", node="n1").stdout
        assert ("CgroupPlugin is disabled" in found or "ProctrackType is proctrack/linuxproc" in found) == (
            cgroups == "disabled"
        ), found
    box.ensure_released(cluster.job, 20)


def test_a_killed_slurmstepd_takes_its_vms_along(box: Box, cgroups: str) -> None:
    with make_cluster(box, "--pcocc-template=tiny", "-wn2") as cluster:
        qemu = cluster.qemus()["vm0"]
        for stepd in box.processes(rf"^slurmstepd: \[{cluster.boot_step()}\]", "n2"):
            box.kill(stepd, signal.SIGKILL)
        wait_for(lambda: not qemu.alive(), "the end of QEMU", 20)
    box.run("srun -w n2 --pcocc-template=tiny true", status=0)  # the next use of the node makes it good
    box.ensure_released(cluster.job, 20)


@pytest.mark.parametrize("cgroups", ["devices"], indirect=True)
def test_a_vm_may_open_the_devices_that_its_job_has(box: Box, cgroups: str) -> None:
    for gres, allowed in (([], False), (["--gres=gpu:1"], True)):
        with make_cluster(box, "--pcocc-template=tiny", "-wn1", *gres) as cluster:
            assert cluster.vm("hostname") == "vm0"
            step = cluster.srun(["-n1", "--overlap", "--mem=0", "sh", "-c", f": <{COUNTED}"])
            assert (step.returncode == 0) == allowed, "what Slurm does for its own steps"
            [qemu] = cluster.qemus().values()
            place = Path(qemu.cgroup("devices"))
            words = f"echo $$ >{place}/cgroup.procs && exec head -c 1 {COUNTED}"
            tried = subprocess.run(["sh", "-c", words], capture_output=True, text=True, check=False)
            assert (tried.returncode == 0) == allowed, f"in {place}: {tried.stderr}"


@pytest.mark.parametrize("cgroups", ["devices"], indirect=True)
@pytest.mark.parametrize("node", NODES)
def test_a_jobs_helpers_are_confined_to_no_device(box: Box, cgroups: str, node: str) -> None:
    with make_cluster(box, "--pcocc-template=tiny", f"-w{node}") as cluster:
        step = int(cluster.boot_step().partition(".")[2])
        servers = box.processes(rf"{cluster.job}\.dnsmasq", node)
        assert servers and not [one for one in servers if f"/step_{step}" in one.cgroup("devices")]
