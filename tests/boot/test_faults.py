"""What breaks: processes that are killed, nodes that lack something, daemons that restart."""

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.box import HOME, ROOT, STATE, Box, Done, Process
from tests.boot.cluster import Cluster, make_cluster
from tests.waiting import limit, wait_for


def ensure_told(done: Done, *words: str) -> None:
    """Check that a command failed with a sentence that has these words, and without a traceback."""
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("pcocc:") and all(word in line for word in words)]
    assert told, done.stderr


def wait_in_vm(cluster: Cluster, vm: str) -> subprocess.Popen[str]:
    """Start a command in a VM that waits; return its srun once it runs."""
    started = cluster.start(["--overlap", "--mem=0", "-n1", f"--pcocc-vm={vm}", "sh", "-c", "echo ready; exec sleep 1000"])
    assert started.stdout is not None and started.stdout.readline() == "ready\n"
    return started


def keeper_of(cluster: Cluster, vm: str) -> Process:
    """Return the keeper of a VM."""
    return cluster.box.processes(rf'pcocc/keeper .*"job": {cluster.job}, "rank": {vm[2:]},')[0]


def test_a_killed_qemu_fails_its_steps_and_is_named(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny:2", "-N2") as cluster:
        waiting = wait_in_vm(cluster, "vm1")
        box.kill(cluster.qemus()["vm1"], signal.SIGKILL)
        ensure_told(box.finish(waiting, 60), "vm1", "n2")
        ensure_told(cluster.srun("-n1 -wn2 --pcocc-vm=vm1 hostname", timeout=60), "vm1", "n2", "ended")
        assert cluster.srun("-n1 --pcocc-vm=vm0 hostname").stdout == "vm0\n"


def test_a_killed_keeper_does_not_hinder_the_end_of_a_job(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny:2", "-N2") as cluster:
        box.kill(keeper_of(cluster, "vm0"), signal.SIGKILL)
        assert cluster.vm(["hostname"]) == "vm0"
    box.ensure_released(cluster.job, 20)


def test_a_killed_slurmstepd_takes_its_vms_along(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny:2", "-N2") as cluster:
        waiting = wait_in_vm(cluster, "vm1")
        qemu = cluster.qemus()["vm1"]
        for stepd in box.processes(rf"^slurmstepd: \[{re.escape(cluster.boot_step())}\]", "n2"):
            box.kill(stepd, signal.SIGKILL)
        wait_for(lambda: not qemu.alive(), "the end of QEMU", 20)
        done = box.finish(waiting, 60)
        assert done.returncode != 0 and "Traceback" not in done.stderr
    box.run("srun -n1 -w n2 --pcocc-template=tiny true", status=0)  # the next use of the node repairs it
    box.ensure_released(cluster.job, 20)


def test_what_a_killed_slurmstepd_left_goes_when_slurmd_starts(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny", "-wn2") as cluster:
        for stepd in box.processes(rf"^slurmstepd: \[{re.escape(cluster.boot_step())}\]", "n2"):
            box.kill(stepd, signal.SIGKILL)
    restart("slurmd", "n2")
    box.ensure_released(cluster.job, 20)


def start_booting(box: Box, *options: str) -> tuple[subprocess.Popen[str], int]:
    """Start an srun with two VMs; return it and its job when its QEMUs have begun."""
    before = set(box.jobs("all"))
    started = box.start(["srun", "--pcocc-template=tiny:2", "-N2", *options, "hostname"])
    job = wait_for(lambda: set(box.jobs()) - before, "the job", 90).pop()
    wait_for(lambda: len(box.qemus(job)) == 2, "two QEMUs", 90)
    return started, job


@pytest.mark.parametrize("how", ["scancel", "ctrl-c"])
def test_a_job_ended_while_it_boots_leaves_nothing(box: Box, how: str) -> None:
    started, job = start_booting(box)
    if how == "scancel":
        box.run(["scancel", str(job)], status=0)
    else:
        started.send_signal(signal.SIGINT)
    done = box.finish(started, 40)
    assert done.returncode != 0 and done.stdout == "" and "Traceback" not in done.stderr
    box.ensure_released(job, 20)


def test_an_srun_killed_while_it_boots_leaves_nothing_once_its_job_is_cancelled(box: Box) -> None:
    started, job = start_booting(box)
    started.send_signal(signal.SIGKILL)
    box.finish(started, 40)  # Slurm itself keeps the job of a killed srun
    box.run(["scancel", str(job)])
    box.ensure_released(job, 40)


def test_a_qemu_killed_while_it_boots_is_told(box: Box) -> None:
    started, job = start_booting(box)
    box.kill(box.qemus(job)["vm1"], signal.SIGKILL)
    ensure_told(box.finish(started, 60), "vm1", "n2", "killed")
    box.ensure_released(job, 20)


def test_a_vm_whose_keeper_is_killed_while_it_boots_is_not_said_to_boot_for_ever(box: Box, empty_disk: Path) -> None:
    before = set(box.jobs("all"))
    started = box.start(["srun", "-w", "n1", "--pcocc-template=tiny", f"--pcocc-image={empty_disk}", "hostname"])
    job = wait_for(lambda: set(box.jobs()) - before, "the job", 90).pop()
    [keeper] = wait_for(lambda: box.processes(rf'pcocc/keeper .*"job": {job}, "rank": 0,', "n1"), "the keeper", 90)
    words = ["pcocc", "ps", "-l", "-j", str(job)]
    assert box.out(words).splitlines()[1].endswith(" booting")
    box.kill(keeper, signal.SIGKILL)
    assert box.out(words).splitlines()[1].endswith(" unwatched: the process that watches it has ended")
    box.run(["scancel", str(job)], status=0)
    assert box.finish(started, 60).returncode != 0
    box.ensure_released(job, 20)


def restart(*words: str) -> None:
    """Restart a daemon of the box."""
    done = subprocess.run([ROOT / "tests/box", "restart", *words], capture_output=True, text=True, timeout=limit(90), check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("daemon", ["slurmctld", "slurmd"])
def test_a_daemon_restarts_under_a_running_cluster(cluster: Cluster, daemon: str) -> None:
    before = cluster.boot_step(), {name: one.pid for name, one in cluster.qemus().items()}
    waiting = wait_in_vm(cluster, "vm0")
    restart(*(["slurmctld"] if daemon == "slurmctld" else ["slurmd", "n1"]))
    # for a minute after its start, slurmctld tells overlapping steps that the nodes are busy, also without us; srun
    # asks ever less often
    words = "--pcocc-vm=vm[0-3] --overlap --mem=0 --immediate=2 hostname"
    done = wait_for(lambda: (found := cluster.srun(words)).returncode == 0 and found, "a step after the restart", 180)
    assert sorted(done.stdout.split()) == ["vm0", "vm1", "vm2", "vm3"]
    assert (cluster.boot_step(), {name: one.pid for name, one in cluster.qemus().items()}) == before
    assert waiting.poll() is None
    cluster.box.interrupt(waiting)


MISSING = {
    "QEMU": ("mount --bind /dev/null /usr/bin/qemu-system-x86_64", "umount /usr/bin/qemu-system-x86_64", "qemu-system-x86_64"),
    "the tun device": ("mount -t tmpfs none /dev/net", "umount /dev/net", "tun"),
    "the runtime": ("mount -t tmpfs none /opt/pcocc/libexec", "umount /opt/pcocc/libexec", "pcocc"),
    "the runtime's Python": ("mount -t tmpfs none /opt/pcocc/lib/pcocc", "umount /opt/pcocc/lib/pcocc", "pcocc"),
    "a working nft": ("mount --bind /bin/false /usr/sbin/nft", "umount /usr/sbin/nft", "nft"),
    "dnsmasq": ("mount --bind /dev/null /usr/sbin/dnsmasq", "umount /usr/sbin/dnsmasq", "dnsmasq"),
    "room for disks": (
        "mkdir -p /var/lib/pcocc/scratch; mount -t tmpfs -o size=16k none /var/lib/pcocc/scratch",
        "umount /var/lib/pcocc/scratch", "vm1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", MISSING)
def test_what_a_node_lacks_is_told(box: Box, what: str) -> None:
    do, undo, word = MISSING[what]
    with box.changed(do, undo, "n2"):
        done = box.run("srun -N2 --pcocc-template=tiny:2 hostname", timeout=90)
        assert done.returncode != 0 and done.stdout == ""
        assert "Traceback" not in done.stderr and "pcocc: error:" in done.stderr, done.stderr
        assert word in done.stderr and "n2" in done.stderr, done.stderr
        assert "hint:" in done.stderr, done.stderr
        box.ensure_released(max(box.jobs("all")), 20)


def test_a_scratch_that_fills_up_is_told(box: Box) -> None:
    do = "mkdir -p /var/lib/pcocc/scratch; mount -t tmpfs -o size=12m,mode=755 none /var/lib/pcocc/scratch"
    with box.changed(do, "umount -l /var/lib/pcocc/scratch", "n2"):
        path = HOME / "boottest-full"
        script = "dd if=/dev/urandom of=$HOME/fill bs=1M count=30 && sync && echo written"
        try:
            step = f"srun -w n2 --pcocc-template=tiny sh -c '{script}' 2>{path}"
            done = box.run([
                "sh", "-c", f"{step} & while kill -0 $! && ! grep -q full {path}; do sleep 0.2; done; kill $!; wait $!",
            ])
            text = path.read_text()
        finally:
            path.unlink(missing_ok=True)
        assert done.returncode != 0 or "written" not in done.stdout
        assert "vm0 on n2" in text and "full" in text and "hint:" in text, text
        box.ensure_released(max(box.jobs("all")), 30)


@pytest.fixture
def impatient(box: Box) -> Iterator[None]:
    """A site that waits six seconds for a guest."""
    do = "cp -p /etc/pcocc/pcocc.yaml /run/pcocc.yaml; sed -i 's/boot-timeout: .*/boot-timeout: 6/' /etc/pcocc/pcocc.yaml"
    with box.changed(do, "cp -p /run/pcocc.yaml /etc/pcocc/pcocc.yaml"):
        yield


@pytest.fixture
def empty_disk() -> Iterator[Path]:
    """A disk with nothing on it."""
    path = STATE / "images/boottest-empty.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True)
    path.chmod(0o644)
    yield path
    path.unlink()


def test_a_guest_without_sshd_is_told_with_its_console(box: Box, impatient: None, empty_disk: Path) -> None:
    done = box.run(f"srun --pcocc-template=tiny --pcocc-image={empty_disk} hostname", timeout=90)
    ensure_told(done, "vm0", "6 s")
    assert "hint:" in done.stderr and "console" in done.stderr, done.stderr
    box.ensure_released(max(box.jobs("all")), 20)
