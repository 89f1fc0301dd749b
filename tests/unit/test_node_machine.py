"""The quiet half of tests/node-machine: its words, its hardware, and what its parts are made of."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.machinelib import cli, hardware, machine, project, root
from tests.machinelib.place import MachineError, Place, digest_files
from tests.node.node import find_own
from tests.releaselib.command import NO_ROOT
from tests.releaselib.suites import RootError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.thorough
def test_its_tests_run_only_where_they_are_named() -> None:
    """All others run without the machine: `make test` names their directories' parent."""
    listed = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    for words, found in ((["tests/node", "tests/lua"], True), (["tests", "--ignore-glob=tests/[!n]*"], False)):
        done = subprocess.run([*listed, *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert ("tests/node/test_hardware.py" in done.stdout) == found, done.stdout + done.stderr


def test_the_node_has_nothing_to_compile_with() -> None:
    argv = root.render_argv("http://mirror.example/debian", ['Acquire::Retries "3"'])
    assert argv[-1] == f"deb http://mirror.example/debian {root.SUITE} main" and '--aptopt=Acquire::Retries "3"' in argv
    packages = next(word for word in argv if word.startswith("--include=")).removeprefix("--include=").split(",")
    assert {"slurmd", "qemu-system-x86", "python3-yaml"} <= set(packages)
    assert not [name for name in packages if name.endswith("-dev") or name in ("gcc", "meson", "build-essential")]


def test_each_numa_node_has_a_socket_and_half_of_the_memory() -> None:
    words = hardware.render_argv()
    assert [words[at + 1] for at, word in enumerate(words) if word == "-numa"] == [
        "node,nodeid=0,cpus=0-1,memdev=memory0", "node,nodeid=1,cpus=2-3,memdev=memory1",
        "dist,src=0,dst=1,val=21", "dist,src=1,dst=0,val=21",
    ]  # fmt: skip
    assert words[words.index("-smp") + 1] == "4,sockets=2,cores=2,threads=1" and words[words.index("-m") + 1] == "4096"
    assert not [word for word in words if word.startswith("nvme,")], "a machine with it could not be saved"
    threaded = hardware.render_argv(threads=2)
    assert [(one, other) for one, other in zip(words, threaded, strict=True) if one != other] == [
        ("max", "max,topoext=on,x-force-features=on"), ("4,sockets=2,cores=2,threads=1", "4,sockets=2,cores=1,threads=2")
    ]


def test_nothing_of_it_is_reached_from_elsewhere_nor_reaches_it() -> None:
    networks = [word for word in hardware.render_argv() if word.startswith("user,")]
    assert len(networks) == 2 and all("restrict=on" in word for word in networks)
    assert [word.partition("hostfwd=")[2] for word in networks] == ["tcp:127.0.0.1:0-:22", ""]


def test_the_port_of_its_sshd_is_what_qemu_says() -> None:
    shown = """Hub -1 (own):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[HOST_FORWARD]  13       127.0.0.1 41357       10.0.2.15    22     0     0
"""
    assert machine.parse_port(shown) == 41357
    with pytest.raises(MachineError, match="no way to the machine"):
        machine.parse_port(shown.replace("HOST_FORWARD", "ESTABLISHED"))


def test_its_parts_are_made_anew_when_their_files_change(tmp_path: Path) -> None:
    (tmp_path / "files/etc").mkdir(parents=True)
    file = tmp_path / "files/etc/slurm.conf"
    seen = []
    for text, mode in (("a", 0o644), ("b", 0o644), ("b", 0o600)):
        file.write_text(text)
        file.chmod(mode)
        seen.append(digest_files([tmp_path / "files"], "word"))
    file.unlink()
    os.symlink("b", file)
    seen += [digest_files([tmp_path / "files"], "word"), digest_files([tmp_path / "files"], "other")]
    assert len(set(seen)) == 5 and digest_files([tmp_path / "files"], "other") == seen[-1]


def test_machines_of_two_checkouts_have_sockets_of_their_own() -> None:
    one, other = (Place(Path(f"/{'long/' * 30}{name}")).sockets for name in ("a", "b"))
    assert one != other and len(str(one)) < 80


def test_what_follows_run_and_test_is_another_commands() -> None:
    assert vars(cli.parse_options(["run", "--as", "bob", "--", "ls", "--as"]))["words"] == ["--", "ls", "--as"]
    assert vars(cli.parse_options(["test", "-k", "reset", "--pdb"]))["words"] == ["-k", "reset", "--pdb"]
    assert cli.parse_options(["--dir", "/x", "up", "--fresh"]).place.path == Path("/x")


@pytest.mark.parametrize("words", ["", "start", "run --as carol ls", "up now"])
def test_other_words_are_refused_with_the_usage(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.parse_options(words.split())
    assert "usage: tests/node-machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ('errors="0" failures="0" skipped="0" tests="12"', "12 tests passed"),
        ('errors="1" failures="2" skipped="1" tests="12"', "8 tests passed, 3 failed, 1 skipped"),
    ],
)
def test_the_closing_line_counts_what_pytest_reports(counts: str, said: str) -> None:
    assert cli.parse_report(f"<testsuites><testsuite {counts}></testsuite></testsuites>") == said


@pytest.mark.parametrize("missing", [(cli, "ensure_root"), (project, "ensure_built")], ids=["root", "packages"])
def test_what_cannot_be_had_here_is_one_sentence_and_a_status_of_its_own(
    missing: tuple[object, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_arguments: object) -> bool:
        raise RootError("the mirror is not reached")

    for module, name in ((cli, "ensure_root"), (cli, "ensure_disk"), (machine, "ensure_saved"), (project, "ensure_built")):
        monkeypatch.setattr(module, name, fail if (module, name) == missing else lambda *_arguments: False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cli.main(["--dir", str(tmp_path / "machine"), "test"]) == NO_ROOT
    assert capsys.readouterr().err == "node-machine: error: the mirror is not reached\n"


def test_what_is_of_a_job_is_told_from_what_is_of_others() -> None:
    own = [
        "process 812 qemu-system-x86_64 -name guest=job8-vm0,debug-threads=on", "namespace pcocc-8", "interface pcn8@if2",
        "table inet pcocc-8", "/run/pcocc/8", "/run/pcocc/.state/8.json", "process 9 /usr/libexec/pcocc/boot 8 /run/pcocc/8/vm0",
    ]  # fmt: skip
    others = ["process 8 qemu-system-x86_64 -name guest=job81-vm8", "namespace pcocc-18", "/run/pcocc/88", "table inet pcocc-80"]
    assert find_own(8, [*own, *others]) == own
