"""When a job's VMs are stored without being told to, and what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pcocc_runtime.documents.cluster import Checkpoints
from pcocc_runtime.errors import NodeError
from pcocc_runtime.slurm.text import JobEnd
from pcocc_runtime.system import installed
from pcocc_runtime.vm import auto_checkpoint
from pcocc_runtime.vm.auto_checkpoint import AutoCheckpoint
from tests.waiting import wait_closely

# in place of `pcocc`: notes its words, and does as it would
_COMMAND = """#!/bin/sh
echo "$*" >>{log}
[ ! -e {home}/fails ] || {{ echo "pcocc: error: vm1 has ended"; exit 1; }}
echo "stored 2 VMs in $3; they stand still"
case "$*" in *--hold*) read -r word; echo "heard $word" >>{log} ;; esac
"""


class Job:
    """A job whose end the test says, and the one that stores its VMs."""

    def __init__(self, home: Path) -> None:
        self.home, self.log = home, home / "log"
        self.end: JobEnd | None = JobEnd(True, None, False)
        self.told: list[str] = []
        self.asked = 0
        self.auto: AutoCheckpoint
        command = home / "pcocc"
        command.write_text(_COMMAND.format(log=self.log, home=home))
        command.chmod(0o755)

    def read_end(self, job: int) -> JobEnd:
        assert job == 7
        self.asked += 1
        if self.end is None:
            raise NodeError("slurmctld is away")
        return self.end

    def begin(self, every: int = 0, at_end: bool = False, before: int = 0, memory: int = 2048) -> AutoCheckpoint:
        self.auto = AutoCheckpoint(7, Checkpoints("/d", every, at_end, before), memory, self.told.append)
        return self.auto

    def turn(self, until: Callable[[], object]) -> None:
        """Have it do what is due until something is so."""

        def done() -> bool:
            self.auto.tick()
            return bool(until())

        wait_closely(done, lambda: f"{self.auto.step} {self.told} {self.lines()}")

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    found = Job(tmp_path)
    monkeypatch.setattr(installed, "COMMAND", str(tmp_path / "pcocc"))
    monkeypatch.setattr(auto_checkpoint, "read_job_end", found.read_end)
    yield found
    found.auto.close()
    if child := found.auto.child:
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def ends_in(seconds: float, preempted: bool = False, runs: bool = True) -> JobEnd:
    return JobEnd(runs, int(time.time() + seconds), preempted)


def test_now_and_then(job: Job) -> None:
    auto = job.begin(every=600)
    auto.tick()
    assert auto.step == "waiting" and job.asked == 0 and 0 < (auto.patience() or 0) <= 600
    auto.due = time.monotonic()
    job.turn(lambda: auto.step == "waiting" and job.lines())
    assert job.lines() == ["checkpoint --job=7 /d"] and job.told == [] and auto.due > time.monotonic()
    (job.home / "fails").touch()
    auto.due = time.monotonic()
    job.turn(lambda: job.told)
    assert job.told == ["pcocc: the VMs of job 7 could not be stored in /d\npcocc: error: vm1 has ended"]
    job.turn(lambda: auto.step == "waiting")
    assert (auto.patience() or 0) > 0, "the next one is tried in time"
    auto.due = time.monotonic()
    job.turn(lambda: len(job.lines()) == 3 and auto.step == "waiting")
    assert len(job.told) == 1, "it is told once"


def test_a_job_without_an_end_is_looked_at_now_and_then(job: Job) -> None:
    auto = job.begin(at_end=True)
    auto.tick()
    auto.tick()
    assert auto.step == "waiting" and job.asked == 1 and (auto.patience() or 0) > 100
    job.end = None
    auto.look = time.monotonic()
    auto.tick()
    assert auto.step == "waiting" and job.asked == 2 and job.told == []


@pytest.mark.parametrize(("before", "spare"), [(0, 62), (45, 45)])
def test_before_the_time_is_over_the_vms_stand_still(job: Job, before: int, spare: int) -> None:
    job.end = ends_in(spare + 100)
    auto = job.begin(at_end=True, before=before)
    auto.tick()
    assert auto.step == "waiting" and 90 < (auto.patience() or 0) <= 101
    job.end, auto.look = ends_in(spare), time.monotonic()
    job.turn(lambda: auto.step == "held")
    assert job.lines() == ["checkpoint --hold --job=7 /d"]
    assert job.told == ["pcocc: stored 2 VMs in --job=7; they stand still until the job ends"]
    auto.look = time.monotonic()
    auto.tick()
    assert auto.step == "held", "the job ends as it was said"
    job.end, auto.look = ends_in(10000), time.monotonic()
    job.turn(lambda: auto.step == "waiting")
    assert job.lines()[1] == "heard go on" and job.told[-1] == "pcocc: job 7 has been given more time, and its VMs go on"
    assert 0 < (auto.patience() or 0) <= 30, "Slurm is asked again"


def test_a_job_that_makes_way_is_stored_and_stands_still(job: Job) -> None:
    auto = job.begin(every=600, at_end=True)
    auto.tick()
    job.end = ends_in(30, preempted=True)
    auto.ask()
    auto.ask()
    job.turn(lambda: auto.step == "held")
    job.end, auto.look = ends_in(10000, preempted=True), time.monotonic()
    auto.tick()
    assert auto.step == "held" and job.lines() == ["checkpoint --hold --job=7 /d"]
    auto.close()
    wait_closely(lambda: job.lines()[1:] == ["heard "], job.lines)


def test_vms_that_are_told_to_end_do_so_once_they_are_stored(job: Job) -> None:
    auto = job.begin(at_end=True)
    auto.tick()
    auto.ask()
    job.turn(lambda: job.lines()[1:] == ["heard "])
    assert auto.step == "over"
    job.turn(lambda: auto.child is None)
    assert auto.patience() is None


def test_asked_while_one_is_made_another_is_made_after_it(job: Job) -> None:
    auto = job.begin(every=600, at_end=True)
    auto.tick()
    auto.due = time.monotonic()
    auto.tick()
    assert auto.step == "storing"
    job.end = ends_in(30, preempted=True)
    auto.ask()
    job.turn(lambda: auto.step == "held")
    assert job.lines() == ["checkpoint --job=7 /d", "checkpoint --hold --job=7 /d"]
    auto.close()


def test_in_a_job_that_has_ended_no_step_is_begun(job: Job) -> None:
    auto = job.begin(at_end=True)
    job.end = ends_in(0, runs=False)
    auto.ask()
    assert auto.step == "waiting" and job.lines() == []


def test_one_that_fails_at_the_end_is_told_and_not_tried_again(job: Job) -> None:
    (job.home / "fails").touch()
    job.end = ends_in(10)
    auto = job.begin(at_end=True)
    job.turn(lambda: job.told)
    assert auto.step == "waiting" and auto.patience() is None


def test_a_command_that_is_not_there_is_told(job: Job) -> None:
    (job.home / "pcocc").unlink()
    auto = job.begin(every=600)
    auto.due = time.monotonic()
    auto.tick()
    assert "cannot be run: No such file or directory" in job.told[0] and auto.step == "waiting"
