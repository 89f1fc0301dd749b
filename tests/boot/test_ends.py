"""How jobs are made to end, stop and make way: guests hear it as programs on hosts do, and what is left goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.boot.box import Box
from tests.boot.cluster import make_cluster
from tests.waiting import wait_for

# in a VM: it takes a while over its end, and says so in a directory that the host sees
_CAREFUL = (
    "srun --pcocc-vm sh -c 'for s in TERM USR1; do trap \"sleep 2; touch /mnt/own/$s-$(hostname); [ $s = USR1 ] || exit 0\" $s;"
    " done; touch /mnt/own/ready-$(hostname); while :; do sleep 0.2; done'"
)


def seen(home: Path, what: str) -> bool:
    """Tell whether both VMs have said something."""
    return all((home / f"in/{what}-vm{rank}").exists() for rank in (0, 1))


@contextmanager
def careful_job(box: Box, home: Path, *options: str) -> Iterator[str]:
    """A job with a command in each of its two VMs, once these are ready."""
    (home / "in").mkdir()
    (home / "in").chmod(0o777)
    own = ["-N2", "--pcocc-template=tiny:2", f"--pcocc-mount=own={home}/in,type=virtiofs", f"--output={home}/out"]
    job = box.out(["sbatch", "--parsable", *own, *options, f"--wrap={_CAREFUL}"], cwd=str(home))
    wait_for(lambda: seen(home, "ready"), lambda: (home / "out").read_text() if (home / "out").exists() else "", 180)
    yield job
    box.run(["scancel", job])
    wait_for(lambda: not box.run(["squeue", "-h", "-j", job]).stdout, f"the end of job {job}", 60)


def test_a_command_has_time_when_its_job_is_cancelled(box: Box, home: Path) -> None:
    with careful_job(box, home) as job:
        box.out(["scancel", job])
        wait_for(lambda: seen(home, "TERM"), "the end of the commands", 30)


def test_a_command_hears_of_its_jobs_limit_before_and_then(box: Box, home: Path) -> None:
    with careful_job(box, home, "--time=1-0", "--signal=USR1@3600") as job:
        assert not seen(home, "USR1")
        box.out(["scontrol", "update", f"JobId={job}", "TimeLimit=60"], user="root")
        wait_for(lambda: seen(home, "USR1"), "the signal before the limit", 180)
        used = "squeue", "-h", "-j", job, "-O", "TimeUsed"
        wait_for(lambda: int(box.out(used).strip().split(":")[0]) > 0, "a minute", 90)
        box.out(["scontrol", "update", f"JobId={job}", "TimeLimit=1"], user="root")
        wait_for(lambda: seen(home, "TERM"), "the limit", 180)
    assert "DUE TO TIME LIMIT" in (home / "out").read_text()


def test_maintenance_leaves_vms_alone(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny:2", "-N2") as cluster:
        words = "ReservationName=boottest StartTime=now Duration=60 Users=root Flags=MAINT,IGNORE_JOBS Nodes=n1,n2"
        box.out(["scontrol", "create", "reservation", *words.split()], user="root")
        try:
            wait_for(lambda: box.node_states().count("$") == 2, "the maintenance", 60)  # sinfo(1): `mixed$`
            assert cluster.vm("hostname", vms="vm1") == "vm1"
            assert box.out(["pcocc", "ssh", "-j", str(cluster.job), "vm0", "hostname"]) == "vm0"
        finally:
            box.out(["scontrol", "delete", "ReservationName=boottest"], user="root")
