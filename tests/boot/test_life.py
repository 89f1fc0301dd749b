"""What Slurm does to jobs, done to jobs with VMs: arrays, requeueing, suspending, draining, a new configuration."""

import gzip
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.box import SHARED_NAME, Box
from tests.boot.cluster import Cluster, make_cluster
from tests.waiting import wait_for

SUSPENDED = 8.0  # seconds


@pytest.fixture(scope="module")
def own(box: Box) -> Iterator[Cluster]:
    """Two VMs on two nodes, for what is done to the whole job."""
    with make_cluster(box, "--pcocc-template=tiny:2", "-N2", name=SHARED_NAME) as found:
        yield found


def test_each_task_of_an_array_has_a_cluster_of_its_own(box: Box, home: Path) -> None:
    wrap = "--wrap=srun --pcocc-vm sh -c 'hostname; ip -o -4 addr show eth0; cat /mnt/own/which /run/user-data'"
    for task in (1, 2, 3):
        (home / f"in-{task}").mkdir()
        (home / f"in-{task}/which").write_text(f"directory {task}\n")
        text = f"#!/bin/sh\necho user-data {task} >/run/user-data\n" if task < 3 else "#cloud-config\nusers: somebody\n"
        (home / f"user-{task}").write_bytes(gzip.compress(text.encode()))
    own = [f"--pcocc-mount=own={home}/in-%a,type=virtiofs", f"--pcocc-user-data={home}/user-%a"]
    options = ["--array=1-3", "--parsable", "--pcocc-template=tiny:1", *own, f"--output={home}/%a.out", wrap]
    job = int(box.out(["sbatch", *options], cwd=str(home)))
    wait_for(lambda: box.is_over(job), f"the end of job {job}", 240)
    for task in (1, 2):
        text = (home / f"{task}.out").read_text()
        assert re.search(r"(?m)^vm0$", text) and "eth0" in text and f"directory {task}\nuser-data {task}\n" in text, text
    assert f"pcocc: error: user-data file {home}/user-3:2: users: " in (home / "3.out").read_text()


def test_a_requeued_job_has_fresh_vms(box: Box, home: Path) -> None:
    script = home / "job.sh"
    script.write_text(
        "#!/bin/sh\nsrun --pcocc-vm sh -c 'cat /mark 2>/dev/null; sudo touch /mark; hostname'\n"
        "touch run-${SLURM_RESTART_COUNT:-0}\n[ ${SLURM_RESTART_COUNT:-0} -gt 0 ] || sleep 600\n"
    )
    options = [
        "--requeue",
        "--open-mode=append",
        "--parsable",
        "-N2",
        "--pcocc-template=tiny:2",
        f"--output={home}/out",
        str(script),
    ]
    job = box.out(["sbatch", *options], cwd=str(home))
    wait_for(lambda: (home / "run-0").exists(), "the first run", 120)
    box.out(["scontrol", "requeue", job])
    wait_for(lambda: box.out(["squeue", "-h", "-j", job, "-o", "%T"]) == "PENDING", "the job to wait", 60)
    box.out(["scontrol", "update", f"JobId={job}", "StartTime=now"])
    wait_for(lambda: (home / "run-1").exists(), "the second run", 180)
    wait_for(lambda: box.is_over(job), f"the end of job {job}", 60)
    said = [line for line in (home / "out").read_text().splitlines() if line.startswith("vm")]
    assert sorted(said) == ["vm0", "vm0", "vm1", "vm1"], (home / "out").read_text()


def test_a_suspended_job_goes_on_as_it_was(box: Box, own: Cluster) -> None:
    job = str(own.job)
    first = _offset(own)
    step = own.start(["--pcocc-vm", "sh", "-c", "for i in 1 2 3 4 5 6; do echo $i; sleep 1; done"])
    assert step.stdout and step.stdout.readline()
    box.out(["scontrol", "suspend", job], user="root")
    try:
        done = box.run(["pcocc", "ssh", "-j", job, "vm0", "true"])
        assert done.returncode == 255 and f"job {job} is suspended" in done.stderr, done.stderr
        time.sleep(SUSPENDED)  # the clocks must not be late by as long as this
    finally:
        box.out(["scontrol", "resume", job], user="root")
    done = box.finish(step)
    assert done.returncode == 0 and done.stdout.count("6\n") == 2, done.stdout + done.stderr
    later = _offset(own)
    assert later[0] - first[1] <= 1 and first[0] - later[1] <= 1, (first, later)
    assert own.vm("hostname", vms="vm1") == "vm1"


def _offset(cluster: Cluster) -> tuple[float, float]:
    """Return between what numbers of seconds a guest's clock is ahead of ours."""
    began = time.time()
    guest = float(cluster.vm("cut -d' ' -f1 /proc/uptime; date +%s").split()[1])
    return guest - time.time(), guest + 1 - began


def test_a_new_configuration_and_a_drained_node_leave_vms_alone(box: Box, own: Cluster) -> None:
    box.out(["scontrol", "reconfigure"], user="root")
    assert own.vm("hostname", vms="vm0") == "vm0"
    node = own.node_of("vm1")
    box.out(["scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=boottest"], user="root")
    try:
        assert own.vm("hostname", vms="vm1") == "vm1"
        assert box.out(["pcocc", "ssh", "-j", str(own.job), "vm1", "hostname"]) == "vm1"
    finally:
        box.out(["scontrol", "update", f"NodeName={node}", "State=RESUME"], user="root")


def test_a_site_has_hooks(box: Box, home: Path) -> None:
    log = home / "hooks"
    hook = f"#!/bin/sh\\n[ ! -e {home}/refuse-$1 ] || {{ echo not today >&2; exit 1; }}\\ntr , : | cut -d: -f4 >>{log}\\n"
    make = "".join(
        f"mkdir -p /etc/pcocc/hooks/{point}.d; printf '{hook.replace('$1', point)}' >/etc/pcocc/hooks/{point}.d/10-test; "
        f"chmod 755 /etc/pcocc/hooks/{point}.d/10-test; "
        for point in ("submit", "boot", "end")
    )
    with box.changed(make, "rm -rf /etc/pcocc/hooks"):
        for point in ("submit", "boot"):
            (home / f"refuse-{point}").touch()
            done = box.run(["srun", "--pcocc-template=tiny:1", "true"])
            assert (
                done.returncode != 0
                and f"the site's hook /etc/pcocc/hooks/{point}.d/10-test refuses: not today" in done.stderr
            ), done.stderr
            (home / f"refuse-{point}").unlink()
        log.unlink(missing_ok=True)
        box.run(["srun", "--pcocc-template=tiny:1", "true"], status=0)
        wait_for(lambda: log.read_text().count("\n") == 3, "the last hook", 30)
        assert log.read_text().split() == ['"submit"', '"boot"', '"end"']
