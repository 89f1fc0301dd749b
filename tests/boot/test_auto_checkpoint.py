"""VMs are stored without being told to, and a requeued job goes on from there (--pcocc-checkpoint)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.box import ROOT, Box
from tests.waiting import limit, wait_for

# a process of the guest's own, which no step's end takes along: it counts in a file of memory
_COUNT = "[ -e /tmp/count ] || setsid sh -c 'n=0; while n=$((n+1)); do echo $n >/tmp/count; sleep 0.2; done' >/dev/null 2>&1 &"
_JOB = f"""#!/bin/sh
srun --pcocc-vm sh -c 'echo $(hostname) begins at $(cat /tmp/count 2>/dev/null || echo 0)'
srun --pcocc-vm sh -c "{_COUNT.replace('$', chr(92) + '$')} sleep 1"
touch run-${{SLURM_RESTART_COUNT:-0}}
[ ${{SLURM_RESTART_COUNT:-0}} -gt 0 ] || srun --pcocc-vm sleep 600
"""


@pytest.fixture
def script(home: Path) -> Path:
    """A job that counts in its two VMs, and says what it finds there when it begins."""
    path = home / "job.sh"
    path.write_text(_JOB)
    return path


def submit(box: Box, home: Path, *options: str) -> str:
    """Submit that job; return its number."""
    own = ["--requeue", "--open-mode=append", "-N2", "--pcocc-template=tiny:2", f"--output={home}/out"]
    return box.out(["sbatch", "--parsable", *own, *options, str(home / "job.sh")], cwd=str(home))


def said_by(home: Path) -> str:
    """Return what the job has said so far."""
    return (home / "out").read_text() if (home / "out").exists() else ""


def wait_for_second_run(box: Box, home: Path, job: str) -> None:
    """Wait until the requeued job has ended; fail unless both VMs were counting when it began."""
    wait_for(lambda: box.out(["squeue", "-h", "-j", job, "-o", "%T"]) == "PENDING", "the job to wait", 120)
    box.out(["scontrol", "update", f"JobId={job}", "StartTime=now"])
    wait_for(lambda: (home / "run-1").exists(), lambda: said_by(home), 180)
    wait_for(lambda: not box.run(["squeue", "-h", "-j", job]).stdout, f"the end of job {job}", 60)
    said = said_by(home)
    found = [line.split() for line in said.splitlines() if " begins at " in line]
    assert [(name, int(count) > 0) for name, *_words, count in sorted(found)] == [
        ("vm0", False), ("vm0", True), ("vm1", False), ("vm1", True),
    ], said
    assert "the VMs go on from the checkpoint in " in said


def test_a_requeued_job_goes_on_from_what_was_stored_now_and_then(box: Box, home: Path, script: Path) -> None:
    job = submit(box, home, "--pcocc-checkpoint=stored,every=0:10")
    wait_for(lambda: (home / "run-0").exists(), "the first run", 120)
    found = set[str]()

    def has_two() -> bool:
        if (home / "stored/current").is_symlink():
            found.add(os.readlink(home / "stored/current"))
        return len(found) > 1

    wait_for(has_two, "a second checkpoint", 120)
    box.out(["scontrol", "requeue", job])
    wait_for_second_run(box, home, job)


def test_the_vms_are_stored_before_the_time_is_over(box: Box, home: Path, script: Path) -> None:
    job = submit(box, home, "--pcocc-checkpoint=stored,at-end=59:00", "--time=1-0")
    wait_for(lambda: (home / "run-0").exists(), lambda: said_by(home), 180)
    box.out(["scontrol", "update", f"JobId={job}", "TimeLimit=60"], user="root")
    held = f"pcocc: stored 2 VMs in {home}/stored; they stand still until the job ends\n"
    wait_for(lambda: held in said_by(home), lambda: said_by(home), 180)
    assert box.out(["squeue", "-h", "-j", job, "-o", "%T"]) == "RUNNING"
    # the limit is over once the job has run for a minute
    wait_for(lambda: int(box.out(["squeue", "-h", "-j", job, "-O", "TimeUsed"]).strip().split(":")[0]) > 0, "a minute", 90)
    box.out(["scontrol", "update", f"JobId={job}", "TimeLimit=1"], user="root")
    wait_for(lambda: not box.run(["squeue", "-h", "-j", job]).stdout, f"the end of job {job}", 180)
    said = said_by(home)
    assert "DUE TO TIME LIMIT" in said, said
    wrap = "srun --pcocc-vm cat /tmp/count"
    box.submit(["--pcocc-restart=stored", f"--output={home}/other", "--wrap", wrap], cwd=str(home))
    counts = [line for line in (home / "other").read_text().splitlines() if line.isdigit()]
    assert len(counts) == 2 and "0" not in counts, (home / "other").read_text()


@pytest.fixture
def preemption(box: Box) -> Iterator[None]:
    """A partition whose jobs make way, after a minute and a half, for those of another."""
    conf = "/etc/slurm/slurm.conf"
    lines = (
        "PreemptType=preempt/partition_prio\\nPreemptMode=REQUEUE\\n"
        "PartitionName=low Nodes=n1,n2 PriorityTier=1 GraceTime=90 PreemptMode=REQUEUE\\n"
        "PartitionName=high Nodes=n1,n2 PriorityTier=9 PreemptMode=OFF\\n"
    )
    with box.changed(f"cp -p {conf} {conf}.kept && printf '{lines}' >>{conf}", f"cat {conf}.kept >{conf} && rm {conf}.kept"):
        restart_slurmctld()
        yield
    restart_slurmctld()


def restart_slurmctld() -> None:
    """Restart slurmctld, which alone has it take another plugin."""
    argv = [ROOT / "tests/box", "restart", "slurmctld"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=limit(90), check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_job_that_makes_way_goes_on_later(box: Box, home: Path, script: Path, preemption: None) -> None:
    job = submit(box, home, "-p", "low", "--exclusive", "--pcocc-checkpoint=stored")
    wait_for(lambda: (home / "run-0").exists(), "the first run", 120)
    box.submit(["-p", "high", "--exclusive", "-N2", f"--output={home}/high", "--wrap", "true"])
    assert "they stand still until the job ends" in said_by(home), said_by(home)
    wait_for_second_run(box, home, job)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "names no directory"),
        ("stored,every=soon", "'soon' in --pcocc-checkpoint=stored,every=soon is not a time"),
        ("stored,every=0:01", "is not between 10 s and ten years"),
        ("nowhere/stored", "/nowhere is not a directory"),
        ("/usr,every=5", "/usr has files that do not belong to a checkpoint"),
        ("/stored", "you may not write to /"),
    ],
)
def test_what_cannot_be_is_refused_before_a_job_is_made(box: Box, home: Path, value: str, said: str) -> None:
    before = box.job_count()
    done = box.run(["sbatch", f"--pcocc-checkpoint={value}", "--pcocc-template=tiny", "--wrap", "true"], cwd=str(home))
    assert done.returncode and said in done.stderr and done.stderr.count("pcocc: error:") == 1, done.stderr
    assert box.job_count() == before
