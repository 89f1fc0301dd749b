"""The notes of the check are printed once, each on a line of its own, and the request is then handled as usual."""

import subprocess
from pathlib import Path

from tests.spank.building import ROOT, run

ANSWER = "cluster abc\nvms 2\ncpus 1\nmemory 512\nexclusive 0\ntemplate tiny:2\nsets default:2\n"


def test_notes_are_told_and_nothing_else_is(tmp_path: Path) -> None:
    run("meson", "setup", str(tmp_path / "meson"))
    flags = ["-D_GNU_SOURCE", f"-I{tmp_path}/meson", f"-I{ROOT}/spank", "-Wall", "-Wextra", "-Werror"]
    run("cc", *flags, "-o", f"{tmp_path}/notes", f"{ROOT}/tests/spank/notes.c", f"{ROOT}/spank/text.c")
    for notes, told in (
        ("", ""),
        ("note user-data file x: note y\nnote \n", "pcocc: note: user-data file x: note y\npcocc: note: \n"),
    ):
        done = subprocess.run([tmp_path / "notes"], input=ANSWER + notes, capture_output=True, text=True, check=True)
        assert done.stderr == told
        assert done.stdout.splitlines() == [
            "PCOCC_CLUSTER=abc", "PCOCC_TEMPLATE=tiny:2", "PCOCC_SIZE=vms=2;cpus=1;memory=512;exclusive=0;sets=default:2",
        ]  # fmt: skip
