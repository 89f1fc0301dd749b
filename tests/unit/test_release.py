"""The quiet half of tests/release: what it takes from this machine, and what it makes of a release."""

import subprocess
from pathlib import Path

import pytest

from tests.releaselib import cgroups, outside
from tests.releaselib.cli import TESTS, parse_options
from tests.releaselib.command import NO_ROOT
from tests.releaselib.root import render_argv
from tests.releaselib.suites import SELECTION, SUITES

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime,nsdelegate,memory_recursiveprot 0 0\n"
VERSION_1 = """tmpfs /sys/fs/cgroup tmpfs ro,nosuid,nodev,noexec,mode=755 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid,nodev,noexec,relatime 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,nosuid,nodev,noexec,relatime,xattr,release_agent=/lib/agent,name=systemd 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,nodev,noexec,relatime,cpu,cpuacct 0 0
cgroup /elsewhere/memory cgroup rw,memory 0 0
"""


def test_each_hierarchy_is_mounted_again_as_it_is_here() -> None:
    assert [(str(one.path), one.kind, one.options) for one in cgroups.parse_hierarchies(SYSTEMD)] == [
        ("/sys/fs/cgroup", "cgroup2", "")
    ]
    assert [(one.path.name, one.kind, one.options) for one in cgroups.parse_hierarchies(VERSION_1)] == [
        ("unified", "cgroup2", ""), ("systemd", "cgroup", "none,name=systemd"), ("cpu,cpuacct", "cgroup", "cpu,cpuacct"),
    ]  # fmt: skip


def test_the_mirror_is_that_of_this_release() -> None:
    listed = """http://others.example/debian Others bookworm main
http://mirror.example/security/ Debian-Security bookworm-security main
http://mirror.example/debian/ Debian trixie main
http://mirror.example/debian/ Debian bookworm contrib
http://mirror.example/debian/ Debian bookworm main
"""
    assert outside.parse_mirror(listed, "bookworm") == "http://mirror.example/debian"
    assert outside.parse_mirror("http://mirror.example/debian/    main\n", "bookworm") is None, "before apt-get update"


def test_no_directory_of_this_machine_is_in_pips_settings() -> None:
    settings = {
        "cert": "/etc/ssl/own.crt", "index-url": "https://index.example/simple", "find-links": "/opt/wheels", "user": "yes",
        "extra-index-url": "file:///opt/simple\nhttps://more.example/simple",
    }  # fmt: skip
    assert outside.plan_pip_settings(settings) == {
        "index-url": "https://index.example/simple", "extra-index-url": "https://more.example/simple", "cert": "/etc/ssl/own.crt",
    }  # fmt: skip


def test_a_root_is_made_of_its_own_archives() -> None:
    words = {name: render_argv(suite, "http://mirror.example/debian", ['Acquire::Retries "3"']) for name, suite in SUITES.items()}
    assert words["trixie"][-1] == "deb http://mirror.example/debian trixie main"
    assert words["bookworm"][-1].splitlines()[1:] == ["deb http://mirror.example/debian bookworm-backports main"]
    assert all('--aptopt=Acquire::Retries "3"' in argv for argv in words.values())


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("trixie", {"suite": "trixie", "words": []}),
        ("trixie -k x --fresh", {"words": ["-k", "x", "--fresh"], "fresh": False}),
        ("trixie --fresh tests/unit", {"words": ["tests/unit"], "fresh": True}),
        ("--fresh sid --run tests/box up", {"suite": "sid", "words": ["tests/box", "up"], "fresh": True, "run": True}),
        ("sid --shell", {"shell": True, "words": []}),
        ("--clean --roots /x", {"clean": True, "roots": Path("/x")}),
    ],
)
def test_what_follows_the_release_is_pytests(words: str, found: dict[str, object]) -> None:
    options = vars(parse_options(words.split()))
    assert {key: options[key] for key in found} == found


@pytest.mark.parametrize("words", ["", "jessie", "trixie --run", "--clean sid", "--suite trixie"])
def test_other_words_are_refused_with_the_usage(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_options(words.split())
    assert "usage: tests/release" in capsys.readouterr().err


@pytest.mark.parametrize(("prepared", "tested", "status"), [(1, 0, NO_ROOT), (0, 1, 1), (0, 0, 0)])
def test_where_the_tests_needs_cannot_be_had_nothing_has_failed(tmp_path: Path, prepared: int, tested: int, status: int) -> None:
    for path, code in (("tests/prepare", prepared), ("build/venv/bin/python", tested)):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / path).chmod(0o755)
    done = subprocess.run(["bash", "-c", TESTS, "tests", "-q"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, "error: " in done.stderr) == (status, bool(prepared))


def test_what_a_release_is_tried_on_is_there() -> None:
    assert [path for path in SELECTION if not (ROOT / path).exists()] == []
