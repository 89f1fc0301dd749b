"""The packages as they are built."""

import subprocess

import pytest

from tests.packaging.conftest import Built
from tests.releaselib.suites import Suite

pytestmark = pytest.mark.packages


def field(built: Built, package: str, name: str) -> str:
    return subprocess.run(["dpkg-deb", "--field", built.files[package], name], capture_output=True, text=True, check=True).stdout.strip()


def test_lintian_finds_nothing_wrong(built: Built) -> None:
    assert [line for line in built.lintian.splitlines() if line.startswith(("E:", "W:"))] == []
    assert {"pcocc", "pcocc-slurm-plugin", "pcocc-doc"} <= built.files.keys()


def test_the_plugin_is_for_one_release_of_slurm(suite: Suite, built: Built) -> None:
    major, minor = suite.slurm.split(".")
    depends = field(built, "pcocc-slurm-plugin", "Depends").split(", ")
    assert {f"slurm-wlm-basic-plugins (>= {suite.slurm})", f"slurm-wlm-basic-plugins (<< {major}.{int(minor) + 1:02}~)"} <= {*depends}
    assert f"pcocc (= {field(built, 'pcocc', 'Version')})" in depends


def test_the_library_that_srun_opens_is_depended_on(built: Built) -> None:
    assert any(word.startswith("libpython3.") for word in field(built, "pcocc-slurm-plugin", "Depends").split(", "))
