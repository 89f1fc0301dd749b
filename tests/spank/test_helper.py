"""How slurmstepd runs root's helper: to its end or for a limited time, on old kernels, too, and without passing on
descriptors.
"""

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
    for limits in (("QUIET_LIMIT_MS 30000", "QUIET_LIMIT_MS 2000"), ("TIME_LIMIT_MS 300000", "TIME_LIMIT_MS 5000")):
        assert f"#define {limits[0]} " in text
        text = text.replace(*limits)
    (build / "helper.c").write_text(text)
    flags = ["-D_GNU_SOURCE", f"-I{build}", f"-I{build}/meson", f"-I{ROOT}/spank"]
    run("cc", *flags, "-o", f"{build}/harness", f"{ROOT}/tests/spank/helper.c", f"{build}/helper.c", f"{ROOT}/spank/text.c")
    return build


def be(build: Path, script: str, *missing: str) -> tuple[bool, int, int, str]:
    """Have the helper be a shell script; return whether it ended, with which status, after how many ms, and what it said."""
    (build / "node").write_text(f"#!/bin/sh\n{script}\n")
    (build / "node").chmod(0o755)
    ended, status, took, said = run(f"{build}/harness", *missing).split(" ", 3)
    return ended == "1", int(status), int(took), said


@pytest.mark.parametrize("missing", OLD, ids=str)
def test_it_ends(build: Path, missing: list[str]) -> None:
    ended, status, _took, said = be(build, "echo hello; exit 3", *missing)
    assert (ended, status, said) == (True, 3, "hello\n")


@pytest.mark.parametrize("missing", [[], ["pidfd"]], ids=str)
def test_one_that_is_stuck_is_ended_with_what_it_was_at(build: Path, missing: list[str]) -> None:
    ended, _status, took, said = be(build, "printf 'running nft'; exec sleep 600", *missing)
    assert not ended and 2000 <= took < 2000 * limit(5) and "took longer than it may, running nft\n" in said


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("work", "missing"), [("sleep 0.25", ["pidfd"]), ("sleep 0.25", []), ("(sleep 0.12; sleep 0.13)", [])], ids=str
)
def test_one_that_has_cpu_time_now_and_then_is_slow_and_not_stuck(build: Path, work: str, missing: list[str]) -> None:
    """As on a node where others use the CPUs: the helper's own CPU time counts, and that of what it has started."""
    ended, status, took, _said = be(build, f"for one in 1 2 3 4 5 6 7 8 9 10; do {work}; done", *missing)
    assert ended and status == 0 and took >= 2500


@pytest.mark.thorough
def test_one_that_does_not_come_to_an_end_is_ended(build: Path) -> None:
    ended, _status, took, said = be(build, "printf spinning; while :; do :; done")
    assert not ended and took >= 5000 and "took longer than it may, spinning\n" in said


@pytest.mark.parametrize("missing", OLD, ids=str)
def test_it_has_no_descriptor_of_slurmstepds(build: Path, missing: list[str]) -> None:
    _ended, _status, _took, said = be(build, "for one in /proc/$$/fd/*; do echo ${one##*/}; done", *missing)
    assert {"0", "1", "2"} <= {*said.split()} and "77" not in said.split()  # others are the shell's own
