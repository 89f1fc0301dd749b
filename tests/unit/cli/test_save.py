"""`pcocc save`: what is refused before anything runs."""

import pytest

from pcocc_runtime.cli import main as cli
from pcocc_runtime.errors import RequestError
from pcocc_runtime.save import task
from pcocc_runtime.save.save import SaveOptions
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


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["vm0"], ["@save"]),
        (["vm[0-3]", "--full", "--safe"], ["@save", "--full", "--safe"]),
        (["vm0", "-d", "n", "--clean"], ["@save", "--dest=n", "--clean"]),
        (["vm0", "-d", "n", "--drive=2"], ["@save", "--dest=n", "--drive=2"]),
    ],
)
def test_the_task_is_asked_for_the_same(words: list[str], asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[list[str]] = []
    monkeypatch.setattr(steps, "run_step", lambda job, vms, words: found.append(words) or 7)
    assert cli.main(["save", "-j", "7", *words]) == 7
    assert found == [asked]
    assert (wish := task.check_words(asked[1:])) == SaveOptions(
        wish.dest, wish.drive, *(f"--{one}" in words for one in ("full", "safe", "clean"))
    )


def test_a_persistent_drive_has_nothing_to_be_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "run_step", lambda job, vms, words: 0)
    assert cli.main(["save", "vm0", "-j", "7", "--drive=1", "--clean", "-d", "n"]) == 1
    with pytest.raises(RequestError, match="about the boot disk"):
        task.check_words(["--drive=1", "--clean", "-d", "n"])
