"""How slurmstepd runs root's helper: to its end or for a time, whatever the kernel has, and with none of its descriptors."""

import re
from pathlib import Path

import pytest

from tests.spank.building import ROOT, run
from tests.waiting import limit

OLD = [[], ["pidfd"], ["close_range"], ["pidfd", "close_range"]]  # kernels before 5.3, before 5.9


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = tmp_path_factory.mktemp("helper")
    run("meson", "setup", str(build / "meson"))
    config = re.sub('PCOCC_LIBEXEC ".*"', f'PCOCC_LIBEXEC "{build}"', (build / "meson/config.h").read_text())
    (build / "config.h").write_text(config)
    text = (ROOT / "spank/helper.c").read_text()
    assert "#define TIME_LIMIT_MS 30000" in text and "#define MOST_LIMITS 4" in text
    for name, milliseconds in (("harness", 1000), ("patient", 2000)):
        short = text.replace("TIME_LIMIT_MS 30000", f"TIME_LIMIT_MS {milliseconds}").replace("MOST_LIMITS 4", "MOST_LIMITS 2")
        (build / f"{name}.c").write_text(short)
        flags = ["-D_GNU_SOURCE", f"-I{build}", f"-I{build}/meson", f"-I{ROOT}/spank"]
        run("cc", *flags, "-o", f"{build}/{name}", f"{ROOT}/tests/spank/helper.c", f"{build}/{name}.c", f"{ROOT}/spank/text.c")
    return build


def be(build: Path, script: str, *missing: str, harness: str = "harness") -> tuple[bool, int, int, str]:
    """Have the helper be a shell script; return whether it ended, with which status, after how many ms, and what it said."""
    (build / "node").write_text(f"#!/bin/sh\n{script}\n")
    (build / "node").chmod(0o755)
    ended, status, took, said = run(f"{build}/{harness}", *missing).split(" ", 3)
    return ended == "1", int(status), int(took), said


@pytest.mark.parametrize("missing", OLD, ids=str)
def test_it_ends_or_is_ended(build: Path, missing: list[str]) -> None:
    ended, status, _took, said = be(build, "echo hello; exit 3", *missing)
    assert (ended, status, said) == (True, 3, "hello\n")
    ended, _status, took, said = be(build, "printf 'running nft'; exec sleep 600", *missing)
    assert not ended and 1000 <= took < 1000 * limit(10) and "took longer than it may, running nft\n" in said


def test_its_limit_is_for_each_thing_that_it_is_at(build: Path) -> None:
    """On a node whose CPUs others take it is slow, and not stuck; one that is always at something new is ended, too."""
    slow = "for what in {}; do printf '%s' \"at $what\" 1<>/proc/self/fd/1; sleep 0.8; done"
    ended, status, took, _said = be(build, slow.format("1 2 3 4"), harness="patient")
    assert ended and status == 0 and took >= 3200
    ended, _status, _took, said = be(build, slow.format("1 1 1 1 1 1"), harness="patient")
    assert not ended and "took longer than it may, at 1\n" in said
    ended, _status, took, said = be(build, slow.format("$(seq 100)"), harness="patient")
    assert not ended and took >= 4000 and "took longer than it may, at " in said


@pytest.mark.parametrize("missing", OLD, ids=str)
def test_it_has_no_descriptor_of_slurmstepds(build: Path, missing: list[str]) -> None:
    _ended, _status, _took, said = be(build, "for one in /proc/$$/fd/*; do echo ${one##*/}; done", *missing)
    assert {"0", "1", "2"} <= {*said.split()} and "77" not in said.split()  # others are the shell's own
