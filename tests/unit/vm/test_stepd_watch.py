"""A boot step whose slurmstepd has died, as Slurm tells of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from pcocc_runtime.errors import NodeError
from pcocc_runtime.slurm.text import Step
from pcocc_runtime.vm import stepd_watch
from pcocc_runtime.vm.stepd_watch import LATE_SECONDS, StepdWatch
from tests.waiting import wait_closely

LAUNCH_SECONDS = 20.0
Looks = Callable[..., StepdWatch]


class Clock:
    """A clock that tests set."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(stepd_watch, "time", made)
    return made


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Looks:
    """Return a function that makes a watch see what Slurm says in turn, a second apart: whole, or not, or nothing."""
    monkeypatch.setattr(stepd_watch.threading.Thread, "start", lambda self: None)
    steps = (Step("7.0", "other", 1, "x"), Step("7.1", os.uname().nodename, 55, "n[1-3]"))
    monkeypatch.setattr(stepd_watch, "read_boot_steps", lambda job: steps)
    monkeypatch.setattr(stepd_watch, "list_nodes", lambda text: ["n1", "n2", "n3"] if text == "n[1-3]" else [])
    monkeypatch.setattr(stepd_watch, "read_launch_seconds", lambda: LAUNCH_SECONDS)

    def see(*said: bool | None) -> StepdWatch:
        watch = StepdWatch(7, 55)
        answers = iter(said)
        monkeypatch.setattr(stepd_watch, "is_step_whole", lambda job, step: next(answers))
        for _answer in said:
            watch._look()
            clock.now += 1
        return watch

    return see


def test_a_step_that_is_there_is_no_news(looks: Looks) -> None:
    watch = looks(False, True, True, False, True)
    assert watch.find_end(()) is None is watch.find_delay(())


def test_a_step_that_was_there_and_is_not_is_told_when_that_is_so_twice(looks: Looks) -> None:
    assert looks(True, False).find_end(()) is None
    assert looks(True, False, None).find_end(()) is None
    watch = looks(True, False, None, False)
    assert watch.find_end(()) == "n1, n2, n3" and watch.find_end(("n1", "n3")) == "n2" and watch.find_delay(()) is None


def test_all_that_answered_before_may_be_meant(looks: Looks) -> None:
    assert looks(True, False, False).find_end(("n1", "n2", "n3")) == "n1, n2, n3"


def test_a_step_that_never_was_there_is_told_once_and_given_up_when_srun_would_have_been(looks: Looks, clock: Clock) -> None:
    watch = looks(False, False)
    assert watch.find_delay(()) is None
    clock.now += LATE_SECONDS
    assert watch.find_delay(("n1",)) == "n2, n3" and watch.find_delay(()) is None and watch.find_end(()) is None
    clock.now += LAUNCH_SECONDS
    assert watch.find_end(("n1",)) == "n2, n3"


def test_a_slurm_that_says_nothing_blames_nobody(looks: Looks, clock: Clock) -> None:
    watch = looks(None, None, None)
    clock.now += 1000
    assert watch.find_end(()) is None is watch.find_delay(())


def test_a_step_that_slurm_does_not_know_yet_has_no_nodes(looks: Looks, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(stepd_watch, "read_boot_steps", lambda job: ())
    watch = looks(False, False, False)
    clock.now += 1000
    assert watch.nodes == [] and watch.find_end(()) is None is watch.find_delay(())


def test_many_nodes_are_counted(looks: Looks) -> None:
    watch = looks(True, False, False)
    watch.nodes = [f"n{number}" for number in range(1, 21)]
    assert watch.find_end(()) == "n1, n2, n3, n4, n5, n6, n7, n8 and 12 other nodes"


def test_it_looks_until_it_is_stopped_whatever_slurmctld_does(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def fail(job: int) -> Any:
        looked.append(job)
        raise NodeError("slurmctld is busy")

    monkeypatch.setattr(stepd_watch, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(stepd_watch, "read_boot_steps", fail)
    watch = StepdWatch(7, 55)
    wait_closely(lambda: len(looked) > 2, "three looks", 5)
    watch.stop()
    assert set(looked) == {7}
