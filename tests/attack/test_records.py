"""Root's helper with records that cannot be read and leftovers that cannot be deleted.

No network is made here; everything else is real.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath, PurePosixPath
from types import SimpleNamespace

import pytest

from pcocc_runtime import naming
from pcocc_runtime.documents.job_record import JobRecord
from pcocc_runtime.errors import NodeError
from pcocc_runtime.networks import removing
from pcocc_runtime.node import accelerator, apply, main, reclaim, records, removal, setup, start
from pcocc_runtime.system import files, tree_removal, trust
from tests.attack.user import ALICE, BOB, as_user
from tests.netns.fabric import SETTINGS, release, request_of

DEEP = "for _ in range(1200): os.mkdir('d'); os.chdir('d')"
MANY = "for n in range(5000): open(str(n), 'w').close()"
SHUT = "os.makedirs('a/b'); os.chmod('a/b', 0); os.chmod('a', 0); os.chmod('.', 0)"


class Here:
    """A node's directories, and the calls about its networks in their order."""

    def __init__(self, base: Path) -> None:
        self.run, self.site, self.confdir = base / "run", base / "scratch", base / "etc"
        self.scratch = self.site / naming.SCRATCH_NAME
        self.asked: list[str] = []
        self.failing: set[int] = set()
        for folder in (self.run, self.site, self.scratch, self.confdir):
            folder.mkdir(mode=0o755)
        for name, text in SETTINGS.items():
            (self.confdir / name).write_text(text)
        (self.confdir / "pcocc.yaml").write_text(f"accel: tcg\nscratch: {self.site}\n")

    def ask(self, what: str) -> Callable[..., None]:
        def asked(*words: object, **_more: object) -> None:
            job = next((word for word in words if isinstance(word, int)), None)
            self.asked.append(what if job is None else f"{what} {job}")
            if what == "remove_networks" and job in self.failing:
                raise NodeError("the device is busy")

        return asked

    def record(self, job: int) -> Path:
        return self.run / f".state/{job}.json"

    def left(self) -> set[str]:
        """Return all that is left of jobs."""
        state = self.run / ".state"
        return {
            str(path.relative_to(self.run.parent))
            for folder in (self.run, self.scratch, state)
            for path in folder.iterdir()
        } - {
            "run/.state", "run/.state/accel.json",
        }


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        Path(name).chmod(0o755)
        found = Here(Path(name))
        monkeypatch.setattr(naming, "RUN_DIR", PurePosixPath(found.run))
        monkeypatch.setattr(naming, "STATE_DIR", PurePosixPath(found.run / ".state"))
        monkeypatch.setattr(accelerator, "_CACHE", found.run / ".state/accel.json")
        for module in (main, start):
            monkeypatch.setattr(module, "CONFIG_DIR", str(found.confdir))
        monkeypatch.setattr(start, "process", SimpleNamespace(run=found.ask("guard")))
        monkeypatch.setattr(start, "sysctl", SimpleNamespace(read=lambda name: "", write=found.ask("reserve")))
        for module, function in ((removing, "remove_networks"), (removing, "remove_netns"), (apply, "make_networks")):
            monkeypatch.setattr(module, function, found.ask(function))
        yield found
        for folder in (found.run, found.scratch):
            tree_removal.remove_tree(folder)


@pytest.fixture
def stepd() -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


def helper(monkeypatch: pytest.MonkeyPatch, verb: str, text: str) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    return main.main([verb])


def alices_job(monkeypatch: pytest.MonkeyPatch, *folders: Path, does: str = "") -> None:
    """Set up Alice's job 12, have her do something in the job's directories, and kill its slurmstepd."""
    with subprocess.Popen(["sleep", "600"]) as process:
        assert helper(monkeypatch, "setup", request_of(ALICE, 12, process.pid)) == 0
        for folder in folders:
            assert as_user(ALICE, lambda at=folder / "12": (os.chdir(at), exec(does)))  # type: ignore[misc]
        process.kill()


@pytest.mark.parametrize("does", [DEEP, MANY, SHUT], ids=["deep", "many", "shut"])
@pytest.mark.parametrize("verb", ["setup", "start", "release"])
def test_what_a_user_leaves_is_nobody_elses(
    here: Here, monkeypatch: pytest.MonkeyPatch, stepd: int, verb: str, does: str
) -> None:
    alices_job(monkeypatch, here.run, here.scratch, does=does)
    assert helper(monkeypatch, verb, {"setup": request_of(BOB, 13, stepd), "start": "", "release": release(12)}[verb]) == 0
    assert not {"run/12", "scratch/pcocc/12", "run/.state/12.json"} & here.left()
    if verb == "setup":
        assert helper(monkeypatch, "release", release(13)) == 0
    assert here.left() == set()


def test_once_it_was_everybodys(here: Here, monkeypatch: pytest.MonkeyPatch, stepd: int) -> None:
    alices_job(monkeypatch, here.run, does=DEEP)
    monkeypatch.setattr(removal, "set_aside", lambda path: shutil.rmtree(path) if os.path.exists(path) else None)
    for verb, text in (("setup", request_of(BOB, 13, stepd)), ("setup", request_of(BOB, 14, stepd)), ("start", "")):
        with pytest.raises(RecursionError):
            helper(monkeypatch, verb, text)


def test_little_time_is_enough_for_everything_but_the_files(
    here: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stepd: int
) -> None:
    alices_job(monkeypatch, here.run, here.scratch, does=MANY)
    real = removal.finish
    monkeypatch.setattr(removal, "finish", lambda folders, seconds: real(folders, 0.0))
    assert helper(monkeypatch, "setup", request_of(BOB, 13, stepd)) == 0
    capsys.readouterr()
    assert helper(monkeypatch, "release", release(13)) == 0
    assert here.left() == {"run/.aside", "scratch/pcocc/.aside"}
    told = "pcocc: some files that ended jobs have left are set aside here; they are deleted later\n"
    assert capsys.readouterr().err == told
    monkeypatch.setattr(removal, "finish", real)
    assert helper(monkeypatch, "start", "") == 0 and here.left() == set()


def break_record(path: Path, how: str) -> None:
    whole = json.loads(path.read_text())
    assert whole["job"] == 12
    texts: dict[str, object] = {
        "empty": "", "cut": json.dumps(whole)[:40], "no text": "\0\xff", "a list": "[1, 2]", "deep": "[" * 100000,
        "newer": {**whole, "flavour": {"a": 1}}, "older": {key: whole[key] for key in ("job", "step")},
        "without scratch": {key: value for key, value in whole.items() if key != "scratch"},
        "types": {key: [value] for key, value in whole.items()}, "wrong stepd": {**whole, "stepd": {"pid": "1", "start": -1}},
        "wrong nat": {**whole, "nat": {"slot": "x", "forwards": 5}}, "wrong scratch": {**whole, "scratch": "/\0"},
    }  # fmt: skip
    text = texts[how]
    path.write_bytes((text if isinstance(text, str) else json.dumps(text)).encode("latin-1"))


UNKNOWN = ["empty", "cut", "no text", "a list", "deep", "older", "types", "wrong stepd"]
KNOWN = ["newer", "without scratch", "wrong nat", "wrong scratch"]  # these still tell the job's slurmstepd
NOTE = "pcocc: the record of job 12 cannot be read: only what its number tells is released\n"


@pytest.mark.parametrize("how", [*UNKNOWN, *KNOWN])
@pytest.mark.parametrize("verb", ["setup", "start"])
def test_it_stops_nobody_else(
    here: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stepd: int, verb: str, how: str
) -> None:
    alices_job(monkeypatch)
    break_record(here.record(12), how)
    capsys.readouterr()
    assert helper(monkeypatch, verb, request_of(BOB, 13, stepd) if verb == "setup" else "") == 0
    assert capsys.readouterr().err == (NOTE if how in UNKNOWN else "")
    assert {"remove_networks 12", "remove_netns 12"} <= set(here.asked)
    assert not here.record(12).exists() and not (here.run / "12").exists()
    if verb == "setup":
        assert helper(monkeypatch, "release", release(13)) == 0
        assert helper(monkeypatch, "start", "") == 0  # the site's settings still tell where the job's scratch was
    assert here.left() == set()


@pytest.mark.parametrize("how", [*UNKNOWN, *KNOWN])
def test_its_job_is_set_up_again_and_released(here: Here, monkeypatch: pytest.MonkeyPatch, stepd: int, how: str) -> None:
    alices_job(monkeypatch)
    break_record(here.record(12), how)
    assert helper(monkeypatch, "setup", request_of(ALICE, 12, stepd, step=1)) == 0
    assert json.loads(here.record(12).read_text())["step"] == 1
    break_record(here.record(12), how)
    assert helper(monkeypatch, "release", release(12, step=1)) == 0
    assert helper(monkeypatch, "start", "") == 0
    assert here.left() == set() and here.asked.count("remove_netns 12") >= 1


@pytest.mark.parametrize("how", KNOWN)
def test_its_job_stays_while_it_runs(here: Here, monkeypatch: pytest.MonkeyPatch, stepd: int, how: str) -> None:
    assert helper(monkeypatch, "setup", request_of(ALICE, 12, stepd)) == 0
    break_record(here.record(12), how)
    assert helper(monkeypatch, "setup", request_of(BOB, 13, stepd)) == 0
    assert helper(monkeypatch, "start", "") == 0
    assert here.record(12).exists() and (here.run / "12").exists() and (here.scratch / "12").exists()
    assert "remove_networks 12" not in here.asked


def test_of_one_that_tells_nothing_any_slurmstepd_of_the_job_speaks(
    here: Here, monkeypatch: pytest.MonkeyPatch, stepd: int
) -> None:
    assert helper(monkeypatch, "setup", request_of(ALICE, 12, stepd)) == 0
    break_record(here.record(12), "empty")
    monkeypatch.setattr(records.process, "find_slurmstepds", lambda job: [stepd] if job == 12 else [])
    assert helper(monkeypatch, "setup", request_of(BOB, 13, stepd)) == 0
    assert (here.run / "12").exists() and "remove_networks 12" not in here.asked


def test_once_another_versions_stopped_everybody(here: Here, monkeypatch: pytest.MonkeyPatch, stepd: int) -> None:
    alices_job(monkeypatch)
    break_record(here.record(12), "newer")
    monkeypatch.setattr(records, "decode_record", lambda job, data: JobRecord(**json.loads(data)))
    for verb, text in (("setup", request_of(BOB, 13, stepd)), ("start", "")):
        with pytest.raises(TypeError, match="flavour"):
            helper(monkeypatch, verb, text)


def test_one_job_that_cannot_be_released_is_told_of(
    here: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stepd: int
) -> None:
    alices_job(monkeypatch)
    here.failing.add(12)
    capsys.readouterr()
    for verb, text in (("setup", request_of(BOB, 13, stepd)), ("start", "")):
        assert helper(monkeypatch, verb, text) == 0
        assert capsys.readouterr().err == "pcocc: job 12 has ended and cannot be released yet: the device is busy\n"
    here.failing.clear()
    assert helper(monkeypatch, "release", release(13)) == 0 and helper(monkeypatch, "start", "") == 0
    assert here.left() == set()


def test_a_directory_that_stays_is_told_of_and_all_else_goes(
    here: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stepd: int
) -> None:
    alices_job(monkeypatch)
    capsys.readouterr()

    def stay(path: Path) -> None:
        raise OSError(5, "no disk", str(path))

    real = removal.set_aside
    monkeypatch.setattr(removal, "set_aside", stay)
    assert reclaim.reclaim() and not here.record(12).exists() and "remove_netns 12" in here.asked
    assert capsys.readouterr().err.count("stays for now: [Errno 5] no disk") == 3  # twice, and as a stray
    monkeypatch.setattr(removal, "set_aside", real)
    assert helper(monkeypatch, "start", "") == 0 and here.left() == set()


def test_what_others_have_in_scratch_is_theirs(here: Here, monkeypatch: pytest.MonkeyPatch, stepd: int) -> None:
    """Names beside our own directory belong to others.

    In our directory, which is root's, not everything that int() takes for a number is a job.
    """
    names = ["\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT THREE}", "012", "0", "9" * 200, "12 ", "-1", "1_2"]
    for name in [*names, "77", "12"]:
        (here.site / name).mkdir()
        (here.site / name / "file").touch()
        if name in names:
            (here.scratch / name).mkdir()
    (here.scratch / "77").mkdir()
    assert helper(monkeypatch, "start", "") == 0
    assert sorted(os.listdir(here.scratch)) == sorted(names)
    assert helper(monkeypatch, "setup", request_of(ALICE, 12, stepd)) == 0
    assert helper(monkeypatch, "release", release(12)) == 0
    assert sorted(os.listdir(here.scratch)) == sorted(names)
    assert all((here.site / name / "file").exists() for name in [*names, "77", "12"])


def test_a_job_has_no_disk_where_others_could_put_things(
    here: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stepd: int
) -> None:
    """In a scratch that everybody may write to, Alice takes our name first."""
    here.scratch.rmdir()
    here.site.chmod(0o1777)
    assert as_user(ALICE, lambda: (here.scratch.mkdir(), (here.scratch / "13").mkdir()))
    assert helper(monkeypatch, "setup", request_of(BOB, 13, stepd)) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"pcocc: error: {here.scratch}: must be a directory owned by root") and said[1].startswith("hint: ")
    assert helper(monkeypatch, "start", "") == 1 and (here.scratch / "13").exists()
    assert not here.record(13).exists() and not (here.run / "13").exists()
    here.scratch.rename(here.site / "away")
    assert helper(monkeypatch, "setup", request_of(BOB, 13, stepd)) == 0 and (here.scratch / "13").stat().st_uid == BOB
    tree_removal.remove_tree(here.site / "away")


def test_the_guard_is_first_and_stands_whatever_becomes_of_the_rest(
    here: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alices_job(monkeypatch)
    break_record(here.record(12), "empty")
    here.asked.clear()
    here.confdir.chmod(0o777)
    assert helper(monkeypatch, "start", "") == 1
    assert here.asked[0] == "guard" and "remove_netns 12" in here.asked
    said = capsys.readouterr().out.splitlines()[-2:]
    assert said[0] == f"pcocc: error: {here.confdir}: can be written by others than root" and said[1].startswith("hint: ")


def test_start_runs_nothing_that_another_than_root_names(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = here.run.parent / "ran"
    ran.mkdir()
    ran.chmod(0o777)
    evil = here.run.parent / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {ran}/it\n")
    evil.chmod(0o755)
    (here.confdir / "pcocc.yaml").write_text(f"accel: auto\nqemu: {evil}\nscratch: {here.site}\n")
    os.chown(here.confdir / "pcocc.yaml", ALICE, ALICE)
    monkeypatch.setattr(accelerator, "KVM_DEVICE", "/dev/null")
    assert helper(monkeypatch, "start", "") == 1 and os.listdir(ran) == []
    monkeypatch.setattr(trust, "ensure_root_only", lambda confdir: None)
    assert helper(monkeypatch, "start", "") == 0 and os.listdir(ran) == ["it"]  # as it was before


def test_what_is_known_of_the_accelerator_may_be_another_versions(
    here: Here, monkeypatch: pytest.MonkeyPatch, stepd: int
) -> None:
    (here.confdir / "pcocc.yaml").write_text(f"accel: auto\nqemu: /bin/false\nscratch: {here.site}\n")
    assert helper(monkeypatch, "start", "") == 0
    kept = json.loads((here.run / ".state/accel.json").read_text())
    for text in ("", "[]", json.dumps({"key": kept["key"]}), json.dumps({**kept, "kind": "xen"}), json.dumps({**kept, "why": 5})):
        (here.run / ".state/accel.json").write_text(text)
        assert helper(monkeypatch, "setup", request_of(BOB, 13, stepd)) == 0


def test_root_writes_into_a_directory_only_before_it_is_the_users(
    here: Here, monkeypatch: pytest.MonkeyPatch, stepd: int
) -> None:
    """A repeated set-up finds the directories that the first one gave to Alice, with what she has put there since."""
    precious = here.run.parent / "precious"
    precious.write_text("precious")
    real, owners = files.replace_file, []

    def replace(path: PurePath, data: bytes, mode: int = 0o600) -> None:
        if path.name != naming.NODE_FILE:
            return real(path, data, mode)
        owners.append([(folder / "12").stat().st_uid for folder in (here.run, here.scratch)])
        assert os.listdir(here.run / "12") == []
        real(path, data, mode)
        owners.append([(folder / "12").stat().st_uid for folder in (here.run, here.scratch)])

    monkeypatch.setattr(files, "replace_file", replace)
    for _time in range(2):
        assert helper(monkeypatch, "setup", request_of(ALICE, 12, stepd)) == 0
        assert owners == [[0, 0], [0, 0]] and (here.run / "12/node.json").stat().st_uid == 0
        assert {(folder / "12").stat().st_uid for folder in (here.run, here.scratch)} == {ALICE}
        owners.clear()

        def plant() -> None:
            (here.run / "12/node.json").unlink()
            (here.run / "12/node.json").symlink_to(precious)
            (here.run / "12/vm0").mkdir()

        assert as_user(ALICE, plant)
    assert helper(monkeypatch, "setup", request_of(ALICE, 12, stepd)) == 0
    assert os.listdir(here.run / "12") == ["node.json"] and not (here.run / "12/node.json").is_symlink()
    assert precious.read_text() == "precious"


@pytest.mark.parametrize(
    "error", [OSError("no"), NodeError("no"), ValueError("no"), KeyError("no"), RecursionError(), KeyboardInterrupt()],
    ids=repr,
)
def test_a_set_up_that_fails_leaves_nothing(
    here: Here, monkeypatch: pytest.MonkeyPatch, stepd: int, error: BaseException
) -> None:
    def fail(*_words: object) -> None:
        raise error

    monkeypatch.setattr(setup, "_give_directories", fail)
    if isinstance(error, OSError | NodeError):
        assert helper(monkeypatch, "setup", request_of(ALICE, 12, stepd)) == 1
    else:
        with pytest.raises(type(error)):
            helper(monkeypatch, "setup", request_of(ALICE, 12, stepd))
    assert here.left() == set()


def test_of_two_boot_steps_the_older_has_the_node(
    here: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stepd: int
) -> None:
    assert helper(monkeypatch, "setup", request_of(ALICE, 12, stepd, step=3)) == 0
    capsys.readouterr()
    assert [helper(monkeypatch, "setup", request_of(ALICE, 12, stepd, step=step)) for step in (4, 2)] == [3, 4]
    assert capsys.readouterr().out == "conflict 3\n" * 2
