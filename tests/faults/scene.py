"""What faults are done to: jobs with VMs on the box, disks that fill up, and what must be true of the box afterwards."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator

from tests.boot.box import HOME, ROOT, Box, Done, Process
from tests.boot.cluster import Cluster, make_cluster
from tests.waiting import limit, wait_for

SCRATCH, OWN = "/var/lib/pcocc/scratch", "/run/pcocc"
TWO = ("--pcocc-template=tiny:2", "-N2")
IMAGE = "faults-image"


def booted(box: Box) -> contextlib.AbstractContextManager[Cluster]:
    """A job with a VM on each node."""
    return make_cluster(box, *TWO)


@contextlib.contextmanager
def booting(box: Box, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """An srun whose two VMs are booting, and its job; both are ended afterwards."""
    before = set(box.jobs("all"))
    started = box.start(["srun", *TWO, *options, "hostname"])
    job = wait_for(lambda: set(box.jobs()) - before, "the job", 90).pop()
    try:
        yield started, job
    finally:
        box.run(["scancel", str(job)], user="root")
        if started in box.started:
            box.finish(started, 60)


@contextlib.contextmanager
def batch(box: Box) -> Iterator[Callable[[], None]]:
    """A batch job whose VMs run, and what ends its script from outside of Slurm; it must be over after the block."""
    mark = HOME / ".faults-batch"
    script = f"srun --pcocc-vm true || exit; touch {mark}; while [ -e {mark} ]; do sleep 0.2; done"
    job = box.out(["sbatch", "--parsable", *TWO, "--output=/dev/null", f"--wrap={script}"])
    try:
        wait_for(lambda: mark.exists() or box.is_over(job), "the batch job's VMs", 180)
        yield mark.unlink
        wait_for(lambda: box.is_over(job), f"the end of job {job}", 240)
    finally:
        mark.unlink(missing_ok=True)
        box.run(["scancel", job], user="root")


def wait_for_qemus(box: Box, job: int) -> dict[str, Process]:
    """Wait until both VMs have their QEMU."""
    return wait_for(lambda: len(found := box.qemus(job)) == 2 and found, "two QEMUs", 90)


def told(done: Done) -> None:
    """Check that a command failed, with a sentence and without a traceback."""
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr, done.stderr


def boot_fails(box: Box, *options: str) -> None:
    """Check that a boot under a fault fails as it should, without a traceback and not by a time limit of Slurm's."""
    told(box.run(["srun", *TWO, *options, "hostname"], timeout=150))


def boot_works(box: Box, *options: str) -> None:
    """Check that a boot works under a fault."""
    box.run(["srun", *TWO, *options, "true"], timeout=240, status=0)


def stepds(box: Box, step: str, node: str) -> list[Process]:
    """Return the slurmstepds of a step."""
    return wait_for(
        lambda: box.processes(rf"^slurmstepd: \[{step}\]".replace(".", "[.]"), node),
        f"the slurmstepd of {step}",
        30,
    )


def small(path: str, size: str) -> tuple[str, str]:
    """Return the commands that put a small file system, on which root keeps what it needs, in the place of a directory."""
    return f"mkdir -p {path}; mount -t tmpfs -o mode=755,size={size} small {path}", f"umount -l {path}"


def read_only(path: str) -> tuple[str, str]:
    """Return the commands that make what is under a directory read-only."""
    return (
        f"mkdir -p {path}; mount --bind {path} {path}; mount -o remount,bind,ro {path}",
        f"umount -l {path}",
    )


def restart(*words: str) -> None:
    """Restart a daemon of the box."""
    done = subprocess.run(
        [ROOT / "tests/box", "restart", *words],
        capture_output=True,
        text=True,
        timeout=limit(90),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def ensure_well(box: Box) -> None:
    """Check what must be true after each fault: nothing is left, no node drained or down, and a later job on both nodes works."""
    for job in box.jobs():
        wait_for(lambda job=job: job not in box.jobs(), f"the end of job {job}", 30)
    box.run(["srun", *TWO, "true"], timeout=240, status=0)
    states = set(box.node_states().split())
    assert not states & {"drained", "draining", "down", "down*", "drained*"}, states
    done = subprocess.run(
        [ROOT / "tests/box", "status", "--wait", str(int(limit(20)))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


IMAGES = "/home/alice/.pcocc/images"
_DAEMON = "setpriv --reuid=nobody --regid=nogroup --clear-groups /opt/pcocc/libexec/pcocc/cache"
CACHE, SOCKET = "/var/lib/pcocc/images", f"{OWN}/cache.socket"


@contextlib.contextmanager
def imported(box: Box) -> Iterator[str]:
    """The tiny image in alice's repository."""
    box.run(
        ["pcocc", "image", "import", "/var/lib/pcocc-box/images/tiny.qcow2", IMAGE], status=0, timeout=180
    )
    try:
        yield IMAGE
    finally:
        forget(box, IMAGE)


def forget(box: Box, name: str) -> None:
    """Delete an image and unfinished files, and check that the repository is sound."""
    box.run(["pcocc", "image", "delete", name])
    box.run(["pcocc", "image", "repo", "gc", "--grace", "0"], status=0)
    box.run(["pcocc", "image", "verify"], status=0)
    assert name not in box.out(["pcocc", "image", "list"])


@contextlib.contextmanager
def cached(box: Box, prepare: str = "", undo: str = "") -> Iterator[str]:
    """Nodes that copy images to their own disks by the service of a cache, on n1, and an image that everybody may read."""
    conf = "/etc/pcocc/pcocc.yaml"
    with imported(box) as name:
        do = f"cp -p {conf} /run/kept.yaml; mkdir -p {CACHE}; "
        do += f"printf 'image-cache: {{size: 1G, directory: {CACHE}}}\\n' >>{conf}; "
        do += f"{prepare or ':'}; chown nobody: {CACHE} || :; "
        do += f"systemd-socket-activate --accept --inetd -l {SOCKET} {_DAEMON} >/dev/null 2>&1 & "
        do += f"echo $! >/run/cache.pid; while ! [ -S {SOCKET} ]; do sleep 0.1; done; chmod 666 {SOCKET}"
        after = f"kill $(cat /run/cache.pid); {undo or ':'}; rm -rf {CACHE} {SOCKET} /run/cache.pid; cp -p /run/kept.yaml {conf}"
        with box.changed(do, after, "n1"):
            yield name
