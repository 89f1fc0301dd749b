"""Commands and options of the original pcocc are answered with those of today."""

import re
from pathlib import Path

import pytest

from pcocc_runtime.cli import former
from pcocc_runtime.cli import main as cli


@pytest.mark.parametrize(
    ("line", "now"),
    [
        ("alloc tpl:3", "salloc --pcocc-template=tpl:3"),
        ("alloc -c 4 -p debug a:2,b", "salloc --pcocc-template=a:2,b -c 4 -p debug"),
        ("alloc -E ./script -r dir a", "salloc --pcocc-template=a --pcocc-restart=dir ./script"),
        ("alloc --mount t=/x --image=i a", "salloc --pcocc-template=a --pcocc-mount=t=/x --pcocc-image=i"),
        ("alloc", "salloc --pcocc-template=TPL:N"),
        ("batch -c 2 tpl", "sbatch --pcocc-template=tpl -c 2 SCRIPT"),
        ("batch -b in.sh --user-data f tpl", "sbatch --pcocc-template=tpl --pcocc-vm --pcocc-user-data=f in.sh"),
        ("batch -E host.sh tpl", "sbatch --pcocc-template=tpl host.sh"),
        ("batch -b", "sbatch --pcocc-template=TPL:N SCRIPT"),
        ("exec -i 1 hostname", "srun --pcocc-vm=vm0 COMMAND"),
        ("ckpt -F dir", "pcocc checkpoint DIR"),
        ("monitor-cmd vm0 info status", "pcocc monitor vm0 COMMAND"),
        ("internal setup cleanup", "pcocc node check"),
        ("docker shell", "pcocc runs VMs only"),
        ("run tpl:1 x", "srun --pcocc-template=TPL:N COMMAND"),
        ("help alloc", "pcocc --help"),
        ("console -l vm0", "pcocc log VM"),
        ("save -i 1 vm0", "--drive I"),
        ("save -s vm0", "--safe"),
        ("display -p vm0", "pcocc display prints a socket"),
    ],
)  # fmt: skip
def test_what_is_written_now_is_named(site: Path, capsys: pytest.CaptureFixture[str], line: str, now: str) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(line.split())
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == "" and err.count("\n") == 2
    assert re.search("hint: the original pcocc had that; now(?: write)?: ", err) and now in err, err


def test_none_of_them_is_a_command_today() -> None:
    assert not set(former.FORMER) & set(cli.COMMANDS)


def test_other_words_are_not_known_as_before(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["nonsense"])
    assert "invalid choice: 'nonsense'" in capsys.readouterr().err
