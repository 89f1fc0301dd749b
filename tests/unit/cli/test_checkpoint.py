"""`pcocc checkpoint`: its directory always leads to a complete checkpoint, whatever happens while another one is made."""

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pcocc_runtime.cli import login
from pcocc_runtime.cli import main as cli
from pcocc_runtime.cli.checkpoint import merge_complaints
from pcocc_runtime.documents.checkpoint import decode_checkpoint
from pcocc_runtime.slurm import commands, steps
from pcocc_runtime.slurm.text import Running
from pcocc_runtime.system import files

# the tasks of two VMs; they fail at a word, if one is given
_TASKS = """
place=$1 last=$2
say() { echo "$1 vm0"; [ "$last" != "$1" ] || { echo 'pcocc: error: vm1 has ended' >&2; exit 1; }; echo "$1 vm1"; }
hear() { read -r word; [ "$word" = "$1" ] || [ "$word" = "$2" ] || exit 9; }
say paused; hear store
echo "far vm0 1 2"; echo $$ >"$place/vm0.memory"; echo boot >"$place/boot"
say stored; hear 'go on' stay
echo 0 >"$place/vm0.json"; echo 1 >"$place/vm1.json"
say summed; hear keep end; echo "$word" >../word
"""
Store = Callable[..., int]


@pytest.fixture
def cancelled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(commands, "cancel_job", found.append)
    return found


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cancelled: list[int]) -> Store:
    """Return a function that runs the command with tasks that fail at a word."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    running = Running(7, "alice", 1000, 1000, 2, "n[1-2]", tasks=2)
    monkeypatch.setattr(steps, "find_own_job", lambda job, deed: running)
    monkeypatch.setattr(login, "find_job", lambda typed: typed or "7")

    def run(*words: str, last: str = "") -> int:
        def start(argv: list[str], take: Callable[[str], bool]) -> steps.StartedOperation:
            assert argv[-2] == "@checkpoint" and "--kill-on-bad-exit=1" in argv and "--pcocc-vm=vm[0-1]" in argv
            pipe = subprocess.PIPE
            return steps.StartedOperation(
                subprocess.Popen(["sh", "-c", _TASKS, "sh", argv[-1], last], stdin=pipe, stdout=pipe, stderr=pipe), take
            )

        monkeypatch.setattr(steps, "start_conversation", start)
        return cli.main(["checkpoint", *(words or ("it",))])

    return run


def read_pid() -> str:
    """Check that there is one checkpoint and that it is complete; return what tells it from that of another run."""
    place = Path(os.readlink("it/current"))
    found = decode_checkpoint(Path("it", place, "checkpoint.json").read_bytes(), "it")
    assert [one.name for one in found.files] == ["boot", "vm0.json", "vm1.json"] and found.vms == 2
    assert sorted(os.listdir()) == ["it"]
    assert sorted(os.listdir("it")) == sorted([place.name, "current"])
    return Path("it", place, "vm0.memory").read_text()


def test_a_checkpoint_takes_the_place_of_an_older_one(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert store() == 0
    said = capsys.readouterr().out
    assert said.startswith(f"stored 2 VMs in {Path('it').absolute()}; the VMs stood still for 0.") and said.endswith(" s\n")
    first = read_pid()
    assert Path("it").stat().st_mode & 0o777 == 0o700
    assert store() == 0 and read_pid() != first
    assert Path("../word").read_text() == "keep\n"


def test_with_stop_the_job_ends(store: Store, cancelled: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    assert store("--stop", "it") == 0 and cancelled == [7]
    assert Path("../word").read_text() == "end\n" and "; job 7 is cancelled\n" in capsys.readouterr().out


@pytest.mark.parametrize("last", ["paused", "stored", "summed"])
def test_a_task_that_fails_leaves_the_older_one(store: Store, capsys: pytest.CaptureFixture[str], last: str) -> None:
    assert store(last=last) == 1
    assert os.listdir() == []
    assert capsys.readouterr() == ("", "pcocc: error: vm1 has ended\n")
    assert store() == 0
    first = read_pid()
    assert store(last=last) == 1
    assert read_pid() == first


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", ""),
        ("pcocc: error: vm0 has X\nhint: boot\n", "vm0 has X|boot"),
        (
            "pcocc: error: vm2 has X\nhint: 'detach vm2'\npcocc: error: vm10 has X\npcocc: error: vm0 has X\n",
            "vm0 has X (and the same of vm2, vm10)|'detach vm2'",
        ),
        ("pcocc: error: vm1 has X\npcocc: error: vm0 has Y, as vm0 is\n", "vm1 has X; vm0 has Y, as vm0 is|None"),
        ("pcocc: error: interrupted\npcocc: error: interrupted\nhint: on\n", "interrupted|on"),
        ("pcocc: error: interrupted\npcocc: error: vm1 has X\n", "vm1 has X|None"),
    ],
)
def test_a_cluster_has_one_sentence(said: str, told: str) -> None:
    problem = merge_complaints(said.splitlines(keepends=True))
    assert (f"{problem.message}|{problem.hint}" if problem else "") == told


@pytest.mark.parametrize("name", ["replace_file", "rename"])
def test_a_file_system_that_takes_no_more_leaves_the_older_one(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert store() == 0
    first = read_pid()

    def fail(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files if name == "replace_file" else Path, name, fail)
        assert store() == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"pcocc: error: the checkpoint could not be completed in {Path('it').absolute()}: No space left on device"
    assert lines[1].startswith("hint: ") and len(lines) == 2 and read_pid() == first


def test_what_killed_commands_left_goes_and_no_more(store: Store, tmp_path: Path) -> None:
    assert store() == 0
    first, host = read_pid(), os.uname().nodename
    left = [Path(f"it/.{host}-999999999-1"), Path(f"it/.{host}-999999999-1.link"), Path(f".it.part-{host}-999999999")]
    for one in left:
        one.symlink_to("nowhere") if one.suffix == ".link" else one.mkdir()
    alive, others = Path(f"it/.{host}-{os.getppid()}-1"), Path("it/.other-999999999-1")
    alive.mkdir()
    others.mkdir()
    assert store() == 0
    assert not any(os.path.lexists(one) for one in left) and alive.exists() and others.exists()
    alive.rmdir()
    others.rmdir()
    assert read_pid() != first


def test_a_directory_that_is_no_checkpoint_is_left_alone(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    Path("mine/file").touch()
    Path("file").touch()
    for typed, said in (("mine", "has files that do not belong to a checkpoint"), ("file", "cannot be read: Not a directory"),
                        ("none/it", "cannot be written: No such file or directory")):
        assert store(typed) == 1
        lines = capsys.readouterr().err.splitlines()
        assert said in lines[0] and lines[0].startswith("pcocc: error: ") and lines[1].startswith("hint: ") and len(lines) == 2
    assert sorted(os.listdir()) == ["file", "mine"] and os.listdir("mine") == ["file"]


@pytest.mark.parametrize("where", ["/tmp", "../precious", "precious", ".", "..", ".hidden", "a file", "a directory"])
def test_a_link_of_the_users_own_is_left_alone(store: Store, capsys: pytest.CaptureFixture[str], where: str) -> None:
    """What the link leads to is removed when the next checkpoint is there: it must be one of ours."""
    for path in ("precious", "it/.hidden"):
        Path(path).mkdir(parents=True)
        Path(path, "file").touch()
    current = Path("it/current")
    if where == "a file":
        current.touch()
    elif where == "a directory":
        current.mkdir()
    else:
        current.symlink_to(where)
    assert store() == 1
    assert "has files that do not belong to a checkpoint" in capsys.readouterr().err
    assert os.path.lexists(current) and Path("precious/file").exists() and Path("it/.hidden/file").exists()


def test_a_hidden_directory_that_only_looks_like_ours_is_left_alone(store: Store) -> None:
    host = os.uname().nodename
    kept = [Path(f"it/.{host}-backup"), Path(f"it/.{host}-1999999999x"), Path(f".it.part-{host}-old")]
    for path in kept:
        path.mkdir(parents=True)
    assert store() == 0 and all(path.is_dir() for path in kept)


def test_a_link_to_a_directory_is_followed(store: Store, tmp_path: Path) -> None:
    Path("real").mkdir()
    Path("link").symlink_to("real")
    assert store("link") == 0
    assert Path("link").is_symlink() and Path("real/current/checkpoint.json").exists()
