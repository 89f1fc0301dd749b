"""`pcocc save`: what is refused before anything runs."""

import pytest

from pcocc_runtime.cli import main as cli


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["vm0"], 1, "which job? give -j JOB"),
        (["vm0", "-j", "x"], 1, "'x' is not the number of a job"),
        (["0", "-j", "7"], 1, "'0' is not a set of VMs"),
        (["vm[0-", "-j", "7"], 1, "'vm[0-' is not a set of VMs"),
        (["vm[0-3]", "-j", "7", "-d", "n"], 1, "several VMs cannot be saved as one image 'n'"),
        (["vm0", "--drive=-1"], 2, "'-1' is not the number of a drive"),
        ([], 2, "the following arguments are required: VMS"),
    ],
)
def test_a_line_that_makes_no_sense(
    words: list[str], status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    try:
        assert cli.main(["save", *words]) == status
    except SystemExit as end:
        assert end.code == status
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[0] and lines[0].startswith("pcocc: error: ") and len(lines) <= 2
