"""What Slurm's commands print, of each release."""

import pytest

from pcocc_runtime.slurm.text import parse_presence

ABSENT = ""
UNKNOWN = "sstat: error: StepId=7.0 not found running.\n"
SILENT = "sstat: error: slurm_job_step_stat: there was an error with the request to n2 rc = Communication connection failure\n"


@pytest.mark.parametrize(
    ("output", "complaints", "whole"),
    [("7.0|n1|12,13\n7.0|n2|\n", "", True), (ABSENT, "", False), (ABSENT, UNKNOWN, None), (ABSENT, SILENT, None)],
)
def test_a_step_is_whole_when_sstat_names_its_nodes(output: str, complaints: str, whole: bool | None) -> None:
    assert parse_presence(output, complaints) is whole
