"""The steps that pcocc starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from pcocc_runtime.slurm.steps import operation_argv, start_conversation
from tests.waiting import limit

ROOT = Path(__file__).resolve().parents[3]


def test_an_operation_is_a_step_on_the_vms_node() -> None:
    argv = operation_argv(7, "vm3", ["@save", "--full"])
    assert argv[:3] == ["srun", "--jobid=7", "--overlap"] and argv[-3:] == [
        "--pcocc-vm=vm3",
        "@save",
        "--full",
    ]
    assert {"--nodelist=n2", "--nodes=1", "--ntasks=1"} <= set(operation_argv(7, "vm3", ["@save"], "n2"))


RUN = (
    "import sys; sys.path.insert(0, sys.argv[1])\n"
    "from pcocc_runtime.slurm.steps import run_vm_step; sys.exit(run_vm_step(sys.argv[2:]))"
)


def run(script: str) -> subprocess.Popen[str]:
    """Start an operation whose srun is a shell script; return the command that runs it."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(ROOT), "sh", "-c", script], stdout=pipe, stderr=pipe, text=True
    )


def test_what_srun_adds_to_an_error_is_left_out() -> None:
    child = run(
        "echo said >&2; echo 'srun: error: n2: task 0: Exited with exit code 3' >&2; echo 'srun: error: lost' >&2; exit 3"
    )
    assert child.communicate(timeout=limit(30)) == ("", "said\nsrun: error: lost\n") and child.returncode == 3


def test_of_tasks_that_end_together_the_one_that_failed_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    lines = (
        "pcocc: error: vm1 has just ended", "hint: see", "pcocc: @checkpoint of vm0 was interrupted",
        "slurmstepd: error: *** STEP 7.2 ON n1 CANCELLED AT 2026-01-01T00:00:00 ***", "srun: error: n1: task 0: Terminated",
        "srun: error: n2: task 1: Exited with exit code 1",
    )  # fmt: skip
    for said, heard in ((lines, "".join(f"{line}\n" for line in lines[:2])), (lines[2:], "")):
        started = start_conversation(["sh", "-c", "; ".join(f"echo '{line}' >&2" for line in said)], lambda _line: False)
        with started.process:
            assert started.wait(limit(20)) == 0
        assert (capfd.readouterr().err, started.has_complained) == (heard, bool(heard))


def test_an_operation_ends_with_the_command_that_runs_it() -> None:
    child = run("trap 'echo ended; exit 9' TERM; echo begun; while :; do sleep 0.1; done")
    assert child.stdout and child.stdout.readline() == "begun\n"
    child.terminate()
    assert child.communicate(timeout=limit(30))[0] == "ended\n" and child.returncode == 9
