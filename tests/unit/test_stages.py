"""What .ci/run makes of its stages: which are begun, what is said of them at the end, and the exit status."""

import re
import sys

import pytest

from tests import stages
from tests.releaselib.command import NO_ROOT
from tests.releaselib.suites import ROOT
from tests.stages import (
    END,
    LIMIT,
    STAGES,
    Outcome,
    Stage,
    decide,
    parse_outcome,
    plan_start,
    run_all,
    run_stage,
)

RELEASE = """release: trixie: making its root, 2 to 5 minutes: there is none
release: trixie: made its root anew in 190 s
making the Python environment build/venv
tests/boot/test_cluster.py ....
FAILED tests/boot/test_streams.py::test_a - assert 1 passed == 2 in 3.0s
=========== 1 failed, 41 passed in 1.50s ============
release: trixie: ended with status 1; its machine is gone
"""
FIRST, GATE, OTHER = Stage(("make", "test"), 30, first=True), Stage(("gate",), 20), Stage(("other",), 20, gates=False)


def test_it_runs_the_command_of_the_readme_first_and_what_stops_nobody_last() -> None:
    assert STAGES[0].argv == ("make", "test") and re.search(r"(?m)^ +make test ", (ROOT / "README.md").read_text())
    gates = [stage.gates for stage in STAGES]
    assert gates[0] and gates == sorted(gates, reverse=True)
    assert "tests.stages" in (ROOT / ".ci/run").read_text()


def test_the_times_fit_into_what_a_machine_has() -> None:
    assert sum(stage.minutes for stage in STAGES if stage.gates) <= LIMIT


def test_an_outcome_is_the_tests_closing_line_and_what_was_made() -> None:
    found = parse_outcome(GATE, 1, 90, RELEASE)
    assert (found.verdict, found.closing) == ("failed", "1 failed, 41 passed in 1.50s")
    assert found.made == ("release: trixie: made its root anew in 190 s", "making the Python environment build/venv")
    assert parse_outcome(GATE, 0, 90, "=== 3 passed in 64.00s (0:01:04) ===\n").closing == "3 passed in 64.00s (0:01:04)"


def test_a_stage_that_says_nothing_of_tests_is_told_by_its_status() -> None:
    assert parse_outcome(GATE, 2, 1, "make: *** [Makefile:9] Error 1\n").closing == "it ended with status 2"


def test_what_cannot_be_had_today_is_not_tried() -> None:
    found = parse_outcome(GATE, NO_ROOT, 5, "release: error: the root of sid cannot be made: unmet\nmore\n")
    assert (found.verdict, found.closing) == ("not tried", "release: error: the root of sid cannot be made: unmet")


def test_a_stage_is_not_begun_when_it_might_not_end() -> None:
    assert plan_start(GATE, (LIMIT - 20) * 60) is None
    assert plan_start(GATE, (LIMIT - 19) * 60) == "19 minutes are left, and it may take 20"
    assert plan_start(GATE, (LIMIT + 5) * 60) == "0 minutes are left, and it may take 20"


@pytest.mark.parametrize(
    ("verdicts", "begun", "status", "said"),
    [
        (("passed", "passed", "passed"), 3, 0, "gate .* passed"),
        (("failed", "passed", "passed"), 1, 1, "!!! make test FAILED\n!!! gate WAS NOT TRIED: make test has failed"),
        (("passed", "failed", "passed"), 3, 1, "!!! gate FAILED\n"),
        (("passed", "not tried", "passed"), 3, 0, "!!! gate WAS NOT TRIED"),
        (("passed", "passed", "failed"), 3, 0, "!!! other FAILED, which stops nobody"),
    ],
)
def test_the_status_is_that_of_the_stages_that_gate(
    verdicts: tuple[str, ...], begun: int, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = []

    def run(stage: Stage, _seconds: float) -> Outcome:
        names.append(stage.name)
        return Outcome(stage, verdicts[len(names) - 1], made=("made 1",))  # type: ignore[arg-type]

    assert run_all((FIRST, GATE, OTHER), run) == status
    assert len(names) == begun
    printed = capsys.readouterr().out
    assert re.search(said, printed) and "made 1" in printed, printed


def test_the_last_stage_has_what_the_others_have_left(capsys: pytest.CaptureFixture[str]) -> None:
    moments = iter([0.0, 0.0, 40 * 60, (LIMIT - 19) * 60, LIMIT * 60])
    given = []
    run_all((FIRST, GATE, OTHER), lambda stage, left: given.append(left) or Outcome(stage, "passed"), lambda: next(moments))
    assert given == [END * 60, (END - 40) * 60]
    assert "!!! other WAS NOT TRIED: 19 minutes are left, and it may take 20" in capsys.readouterr().out


def test_a_stage_is_shown_while_it_runs_and_told_by_its_end(capfd: pytest.CaptureFixture[str]) -> None:
    words = (sys.executable, "-c", "import sys; print('== 2 passed in 1.0s =='); print('!', file=sys.stderr); sys.exit(3)")
    found = run_stage(Stage(words, 1), 60)
    assert (found.verdict, found.closing) == ("failed", "2 passed in 1.0s")
    assert "2 passed" in capfd.readouterr().out


def test_a_process_that_a_stage_leaves_behind_does_not_hold_the_run_up() -> None:
    assert run_stage(Stage(("sh", "-c", "sleep 9 & exit 0"), 1), 60).verdict == "passed"


def test_a_stage_without_an_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "_PATIENCE", 0.1)
    found = run_stage(Stage(("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"), 1), 0.2)
    assert (found.verdict, decide([found])) == ("failed", 1) and "no time is left" in found.closing
