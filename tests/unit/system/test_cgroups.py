"""In which cgroup a step's processes are, in the forms that releases of Slurm have (tests/data/slurm/cgroup)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pcocc_runtime.system import process
from pcocc_runtime.system.cgroups import parse_step_group
from pcocc_runtime.vm import host_memory

DATA = Path(__file__).resolve().parents[2] / "data/slurm/cgroup"
GROUPS = {
    "v1": "/slurm/uid_1000/job_5/step_0",
    "v2": "/system.slice/slurmstepd.scope/job_5/step_0",
    "v2-sluid": "/system.slice/slurmstepd.scope/sE51M8M62PTY00/step_0",
    "v2-nodes": "/system.slice/n1_slurmstepd.scope/job_5/step_0",
    "disabled": None,
}


def sample(form: str, who: str) -> str:
    return (DATA / f"{form}.{who}").read_text()


def test_every_sample_is_looked_at() -> None:
    assert {path.stem for path in DATA.glob("*.*")} == {*GROUPS}


@pytest.mark.parametrize("form", GROUPS)
def test_a_steps_group_is_what_its_slurmstepd_and_its_tasks_are_in(form: str) -> None:
    assert parse_step_group(sample(form, "stepd"), 5, 0) == parse_step_group(sample(form, "task"), 5, 0) == GROUPS[form]
    group = GROUPS[form]
    assert group is None or any(f"{group}/" in f"{line}/" for line in sample(form, "task").splitlines())


CAPTURED = sorted(path.parent for path in DATA.parent.glob("*/cgroup.task"))


def test_a_release_is_among_what_the_box_has_shown() -> None:
    assert CAPTURED


@pytest.mark.parametrize("folder", CAPTURED, ids=lambda folder: folder.name)
def test_a_release_has_both_in_one_group(folder: Path) -> None:
    """What tests/data/slurm/capture has taken."""
    job = int((folder / "squeue-jobs").read_text().split("|")[1])
    stepd, task = ((folder / f"cgroup.{who}").read_text() for who in ("stepd", "task"))
    group = parse_step_group(task, job, 0)
    assert group is not None and group == parse_step_group(stepd, job, 0)


@pytest.mark.parametrize("form", GROUPS)
@pytest.mark.parametrize("who", ["stepd", "task"])
def test_a_number_that_begins_alike_is_another(form: str, who: str) -> None:
    text = sample(form, who).replace("step_0", "step_01").replace("job_5", "job_55")
    assert parse_step_group(text, 5, 0) is None


def test_a_slurm_within_a_step_of_another_has_its_own() -> None:
    inside = "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0/system.slice/slurmstepd.scope/job_5/step_0/slurm\n"
    assert str(parse_step_group(inside, 5, 0)).endswith("/user/task_0/system.slice/slurmstepd.scope/job_5/step_0")


@pytest.mark.parametrize("form", [form for form, group in GROUPS.items() if group])
def test_roots_helper_leaves_the_job_where_slurm_has_a_place_for_it(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = GROUPS[form]
    assert group is not None
    monkeypatch.setattr(process, "parse_step_group", lambda text, job, step: group)
    process.leave_step(5, 0, str(tmp_path))  # v1: there is none
    place = tmp_path / Path(group).parents[1].relative_to("/") / "system"
    place.mkdir(parents=True)
    process.leave_step(5, 0, str(tmp_path))
    assert (place / "cgroup.procs").read_text() == "0"


LIMITS = {
    "v1": [
        "/sys/fs/cgroup/memory/slurm/uid_1000/job_5/step_0/task_1/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ],
    "v2": [
        "/sys/fs/cgroup/system.slice/slurmstepd.scope/job_5/step_0/user/task_1/memory.max", "/sys/fs/cgroup/memory.max",
    ],
    "v2-sluid": ["/sys/fs/cgroup/system.slice/slurmstepd.scope/sE51M8M62PTY00/step_0/user/task_1/memory.max"],
    "v2-nodes": ["/sys/fs/cgroup/system.slice/n1_slurmstepd.scope/job_5/step_0/user/memory.max"],
    "disabled": ["/sys/fs/cgroup/system.slice/slurmd.service/memory.max"],
}


@pytest.mark.parametrize("form", LIMITS)
def test_a_tasks_memory_is_limited_by_its_group_and_those_above(form: str) -> None:
    assert {*LIMITS[form]} <= {*host_memory.limit_files(sample(form, "task"))}


def test_a_processs_own_files_are_there() -> None:
    """Of the hierarchies that this machine has: else a limit would be passed over in silence."""
    files = host_memory.limit_files(Path("/proc/self/cgroup").read_text())
    mounted = Path("/sys/fs/cgroup/memory").is_dir() or Path("/sys/fs/cgroup/cgroup.controllers").exists()
    assert not mounted or any(os.path.exists(os.path.dirname(file)) for file in files)
