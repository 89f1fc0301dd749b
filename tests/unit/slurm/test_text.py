"""What the commands of each release of Slurm print: samples that tests/data/slurm/capture has taken in the box."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pcocc_runtime.errors import RequestError
from pcocc_runtime.guest.login import parse_vm_name
from pcocc_runtime.slurm.text import (
    JobEnd,
    Killed,
    Listed,
    ensure_job_number,
    field_of,
    find_controller,
    find_launch_seconds,
    find_own_line,
    is_loss,
    is_routine,
    is_step_end,
    is_unknown,
    parse_configuration,
    parse_job,
    parse_job_end,
    parse_killed,
    parse_listed,
    parse_presence,
    parse_running,
    parse_steps,
)

SAMPLES = Path(__file__).resolve().parents[2] / "data/slurm"
RELEASES = sorted(path.parent.name for path in SAMPLES.glob("*/squeue-jobs"))
MARK = "0123456789abcdef"


class Sample:
    """What one release printed: of a job with two VMs, of task 3 of an array with one each, and of a heterogeneous job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job = int(field_of(self["job"], "JobId"))
        self.task = int(field_of(self["array-job"], "JobId"))
        self.array = int(field_of(self["array-job"], "ArrayJobId"))

    def __getitem__(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture(params=RELEASES)
def sample(request: pytest.FixtureRequest) -> Sample:
    return Sample(SAMPLES / request.param)


def test_there_are_samples() -> None:
    assert RELEASES


def test_a_job_has_nodes_cpus_and_memory(sample: Sample) -> None:
    facts = parse_job(sample.job, sample["job"])
    assert (facts.job, facts.nodes, facts.cpus_per_task, facts.task_memory(2)) == (sample.job, 2, 1, 512)
    assert parse_job(sample.task, sample["array-job"]).nodes == 1
    assert (facts.array_task, parse_job(sample.task, sample["array-job"]).array_task) == (None, 3)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("JobId=7 JobState=RUNNING Restarts=3 EndTime=1764518400", JobEnd(True, 1764518400, False)),
        ("JobId=7 JobState=RUNNING EndTime=Unknown PreemptTime=None", JobEnd(True, None, False)),
        ("JobId=7 JobState=RUNNING EndTime=99 PreemptEligibleTime=7 PreemptTime=8", JobEnd(True, 99, True)),
        ("JobId=7 JobState=COMPLETING EndTime=99", JobEnd(False, 99, False)),
    ],
)
def test_a_job_has_an_end(line: str, wanted: JobEnd) -> None:
    assert parse_job_end(line) == wanted
    assert parse_job(7, f"NumNodes=1 {line}").restarts == 3 * ("Restarts" in line)


def test_a_boot_step_has_a_name_for_scancel_and_the_srun_that_made_it(sample: Sample) -> None:
    [step] = parse_steps(sample["steps"])
    assert step.name.endswith(".0") and step.nodes == "n[1-2]" and step.is_of(step.pid, step.host) and step.pid > 0
    [of_task] = parse_steps(sample["array-steps"])
    assert of_task.name.endswith(".0") and of_task.nodes in ("n1", "n2") and parse_steps(sample["no-step"]) == ()


def test_a_job_that_runs_vms_is_its_owners(sample: Sample) -> None:
    running = parse_running(str(sample.job), sample["job"], sample["steps"])
    assert (running.job, running.user, running.uid, running.gid, running.nodes, running.node_list) == (
        sample.job, "alice", 2001, 2001, 2, "n[1-2]",
    )
    assert parse_running(f"{sample.array}_3", sample["array-job"], sample["array-steps"]).job == sample.task


def test_the_task_that_has_its_arrays_number_is_itself(sample: Sample) -> None:
    lines = sample["array-whole"].splitlines()
    assert len(lines) == 2 and parse_job(sample.array, sample["array-whole"]).array_task == 4
    assert parse_job(sample.task, "\n".join(reversed(lines))).array_task == 3


def test_an_array_and_a_heterogeneous_job_are_not_single_jobs(sample: Sample) -> None:
    for name in ("array-whole", "het-job"):
        with pytest.raises(RequestError, match="is not a single job"):
            parse_running("7", sample[name], sample["steps"])


def test_a_number_means_the_job_itself_as_for_srun(sample: Sample) -> None:
    """SLURM_JOB_ID of an array's last task, and of a heterogeneous job's first part, is that of them all."""
    for name, job in (("array-whole", sample.array), ("array-whole", sample.task)):
        line = find_own_line(f"0{job}", sample[name])
        assert "\n" not in line and parse_running(str(job), line, sample["array-steps"]).job == job
    for line in sample["het-job"].splitlines():
        own = find_own_line(field_of(line, "JobId"), sample["het-job"])
        assert own == line
        with pytest.raises(RequestError, match="are not running"):
            parse_running(field_of(line, "JobId"), own, "")
    waits = sample["array-whole"].replace("JobState=RUNNING", "JobState=PENDING")
    assert find_own_line(str(sample.array), waits) == waits


@pytest.mark.parametrize(
    ("text", "good"),
    [("5", True), ("5_3", True), ("5+1", True), ("005", True), ("0", False), ("00", False), ("0_1", False), ("5_", False),
     ("5+", False), ("5_3+1", False), ("+1", False), ("5 1", False), ("5\n", False), ("\u0665", False), ("12345678901", False)],
)  # fmt: skip
def test_the_words_of_a_job(text: str, good: bool) -> None:
    if good:
        ensure_job_number(text)
        assert parse_vm_name(f"vm0.{text}")
        return
    with pytest.raises(RequestError, match="is not the number of a job"):
        ensure_job_number(text)


def test_a_job_that_is_not_there_is_known_by_its_words(sample: Sample) -> None:
    assert "Invalid job id" in sample["no-job"]


def test_the_clusters_that_run_are_listed_with_the_names_of_their_jobs(sample: Sample) -> None:
    listed = {one.job: one for one in parse_listed(sample["squeue-jobs"], sample["squeue-steps"], MARK)}
    first = listed[sample.job]
    assert first == Listed(sample.job, str(sample.job), "alice", "main", first.used, "two words", 2, "n[1-2]")
    assert re.fullmatch(r"(\d+:)?\d?\d:\d\d", first.used)
    assert (listed[sample.task].label, listed[sample.task].vms) == (f"{sample.array}_3", 1)


def test_the_configuration_names_slurmctld_and_times(sample: Sample) -> None:
    settings = parse_configuration(sample["config"])
    assert find_controller(settings) == "10.77.0.1" and find_launch_seconds(settings) == 20


def test_a_step_is_whole_when_sstat_names_its_nodes(sample: Sample) -> None:
    assert parse_presence(sample["sstat"], "") is True
    assert parse_presence("", sample["sstat-none"]) is None  # Slurm knows no such step: that tells nothing of nodes
    assert parse_presence("", "") is False
    silent = (
        "sstat: error: slurm_job_step_stat: there was an error with the request to n2 rc = Communication connection"
        " failure\n"
    )
    assert parse_presence("", silent) is None


def test_srun_says_that_a_task_was_killed_and_where(sample: Sample) -> None:
    killed = {found for line in sample["srun-killed"].splitlines() if (found := parse_killed(line))}
    assert killed == {Killed("n1", "0"), Killed("n2", "1")}


def test_srun_says_that_tasks_ended(sample: Sample) -> None:
    for name in ("srun-exit", "srun-no-program"):
        lines = [line for line in sample[name].splitlines() if line.startswith("srun: ")]
        assert lines and any(map(is_loss, lines)) and not any(map(is_step_end, lines)), lines
    # a boot step is in a job that runs
    ends = [line for line in sample["srun-exit"].splitlines() if not line.startswith("srun: job ")]
    assert ends and all(map(is_routine, ends))


def test_the_end_of_a_step_that_was_cancelled_is_no_news(sample: Sample) -> None:
    lines = sample["srun-cancelled"].splitlines()
    assert any(map(is_step_end, lines)) and all(map(is_routine, lines)), lines


@pytest.mark.parametrize(
    ("complaint", "unknown"),
    [
        ("scontrol failed: slurm_load_jobs error: Invalid job id specified", True),
        ("scontrol failed on login: Job step 22. not found", True),  # 22.05, of a job that waits
        ("scontrol failed: slurm_load_jobs error: Unable to contact slurm controller (connect failure)", False),
    ],
)
def test_what_scontrol_does_not_know_is_told_from_what_it_cannot_ask(complaint: str, unknown: bool) -> None:
    assert is_unknown(complaint) is unknown
