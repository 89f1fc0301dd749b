"""`pcocc save`: what is refused before anything runs."""

import pytest

from pcocc_runtime.cli import main as cli
from pcocc_runtime.guest import clean
from pcocc_runtime.slurm import steps


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


CLEAN, RESTORE = clean.render_clean(), clean.render_restore()
SAVE = ["@save", "--dest=n"]


@pytest.mark.parametrize(
    ("failing", "status", "ran", "said"),
    [
        (None, 0, [CLEAN, SAVE, RESTORE], "note: the image has no ssh keys of the job or the host"),
        ("clean", 1, [CLEAN, RESTORE], "vm0 cannot put aside what identifies it, so nothing is saved"),
        ("save", 1, [CLEAN, SAVE, RESTORE], ""),
        ("restore", 0, [CLEAN, SAVE, RESTORE], "vm0 has not taken back what was put aside: it is in /run/pcocc-clean.tar"),
    ],
)
def test_a_clean_save_takes_back_what_it_put_aside(
    failing: str | None, status: int, ran: list[list[str]], said: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str]
) -> None:
    names, found = {"clean": CLEAN, "save": SAVE, "restore": RESTORE}, []

    def run_step(job: str, vms: str, words: list[str]) -> int:
        found.append(words)
        return int(words == names.get(failing or ""))

    monkeypatch.setattr(steps, "run_step", run_step)
    assert cli.main(["save", "vm0", "-j", "7", "-d", "n", "--clean"]) == status
    assert found == ran and said in capsys.readouterr().err


def test_a_save_says_what_the_image_has(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(steps, "run_step", lambda job, vms, words: 0)
    assert cli.main(["save", "vm0", "-j", "7"]) == 0
    assert "note: the image has what identifies the VM: the job's ssh keys" in capsys.readouterr().err
    assert cli.main(["save", "vm0", "-j", "7", "--drive=1", "-d", "n"]) == 0 and capsys.readouterr().err == ""
    assert cli.main(["save", "vm0", "-j", "7", "--drive=1", "--clean", "-d", "n"]) == 1
