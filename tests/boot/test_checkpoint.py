"""A cluster is stored as of one moment, and another job goes on from there."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.boot.box import Box
from tests.boot.cluster import make_cluster
from tests.waiting import wait_for

# a connection between the two VMs that counts, as long as it lives; on vm1 its last number is in a file of memory
_ALONE = "env -i PATH=$PATH setsid sh -c '%s' </dev/null >/dev/null 2>&1 &"  # which no step's end takes along
_LISTEN = _ALONE % "nc -l -p 7777 | while read n; do echo $n >/tmp/count; done" + " sleep 1"
_COUNT = _ALONE % "n=0; while echo $n; do n=$((n+1)); sleep 0.1; done | nc vm1 7777" + " echo kept >/tmp/mark"
_WRITE = "echo on-disk | sudo tee /written >/dev/null; sync"


def test_a_cluster_goes_on_in_another_job(box: Box, home: Path) -> None:
    place = home / "stored"
    with make_cluster(box, "--pcocc-template=tiny:2", "-N2") as cluster:
        cluster.vm(_LISTEN, vms="vm1")
        cluster.vm(_COUNT)
        cluster.vm(_WRITE, vms="vm1")
        wait_for(lambda: cluster.vm("cat /tmp/count || true", vms="vm1"), "the count")
        done = box.run(["pcocc", "checkpoint", "-j", str(cluster.job), str(place)], status=0, timeout=240)
        assert done.stdout.startswith(f"stored 2 VMs in {place} (")
        assert cluster.vm("cat /tmp/mark") == "kept", "it goes on"
        older = (place / "checkpoint.json").read_bytes()
        box.run(["pcocc", "checkpoint", "-j", str(cluster.job), "--stop", str(place)], status=0, timeout=240)
        assert (place / "checkpoint.json").read_bytes() != older and [one.name for one in home.iterdir()] == ["stored"]
        wait_for(lambda: not box.run(["squeue", "-h", "-j", str(cluster.job)]).stdout, "the job's end")
    look = "cat /tmp/mark /written; cat /tmp/count; sleep 2; cat /tmp/count"
    script = f"srun --pcocc-vm=vm0 -n1 cat /tmp/mark; srun --pcocc-vm=vm1 -n1 sh -c '{look.replace('/tmp/mark ', '')}'"
    options = [f"--pcocc-restart={place}", "-N2", f"--output={home}/out", "--wrap", script]
    assert box.submit(options) == 0, (home / "out").read_text()
    kept, written, first, last = (home / "out").read_text().splitlines()[-4:]
    assert (kept, written) == ("kept", "on-disk") and int(first) < int(last)


def test_a_checkpoint_that_is_killed_leaves_cluster_and_older_one(box: Box, home: Path) -> None:
    place = home / "stored"
    with make_cluster(box, "--pcocc-template=tiny:2", "-N2") as cluster:
        words = ["pcocc", "checkpoint", "-j", str(cluster.job), str(place)]
        box.run(words, status=0, timeout=240)
        older = (place / "checkpoint.json").read_bytes()
        child = box.start(words)
        wait_for(lambda: any(home.glob(".stored.part-*/vm0.memory")), "the memory")
        for process in box.processes(f"pcocc checkpoint -j {cluster.job}"):
            os.kill(process.pid, signal.SIGKILL)
        box.finish(child)
        assert cluster.vm("hostname") == "vm0" and cluster.vm("hostname", vms="vm1") == "vm1"
        assert (place / "checkpoint.json").read_bytes() == older


def test_what_cannot_be_gone_on_from_is_refused_before_a_job_is_made(box: Box, home: Path) -> None:
    (home / "other").mkdir()
    before = box.jobs("all")
    for options, said in (
        ([f"--pcocc-restart={home}/other"], "checkpoint.json cannot be read"),
        ([f"--pcocc-restart={home}/other", "--pcocc-template=tiny"], "--pcocc-restart and --pcocc-template exclude each other"),
    ):
        done = box.run(["sbatch", *options, "--wrap", "true"])
        assert done.returncode and said in done.stderr and done.stderr.count("pcocc: error:") == 1, done.stderr
    assert box.jobs("all") == before
