"""The packages as they are built."""

import re
import subprocess

import pytest

from tests.packaging.machine import Built
from tests.releaselib.suites import Suite

pytestmark = pytest.mark.packages


def field(built: Built, package: str, name: str) -> str:
    return subprocess.run(
        ["dpkg-deb", "--field", built.files[package], name], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_lintian_finds_nothing_wrong(built: Built) -> None:
    assert [line for line in built.lintian.splitlines() if line.startswith(("E:", "W:"))] == []
    assert {"pcocc", "pcocc-slurm-plugin", "pcocc-doc"} <= built.files.keys()


def test_the_plugin_is_for_one_release_of_slurm(suite: Suite, built: Built) -> None:
    major, minor = suite.slurm.split(".")
    depends = field(built, "pcocc-slurm-plugin", "Depends").split(", ")
    assert {
        f"slurm-wlm-basic-plugins (>= {suite.slurm})",
        f"slurm-wlm-basic-plugins (<< {major}.{int(minor) + 1:02}~)",
    } <= {*depends}
    assert f"pcocc (= {field(built, 'pcocc', 'Version')})" in depends


def test_the_library_that_srun_opens_is_depended_on(built: Built) -> None:
    assert any(word.startswith("libpython3.") for word in field(built, "pcocc-slurm-plugin", "Depends").split(", "))


def files_of(built: Built, package: str) -> set[str]:
    """Return the paths, as in an RPM, of those files of a Debian package that every distribution has."""
    listed = subprocess.run(["dpkg-deb", "--fsys-tarfile", built.files[package]], capture_output=True, check=True).stdout
    names = subprocess.run(["tar", "--list"], input=listed, capture_output=True, check=True).stdout.decode().splitlines()
    found = {name.removeprefix(".") for name in names if not name.endswith("/")}
    here = {re.sub(r"(/man/.*)\.gz$", r"\1", name.replace("/lib/x86_64-linux-gnu/slurm-wlm/", "/lib64/slurm/")) for name in found}
    return {name for name in here if not name.startswith(("/usr/share/doc/", "/usr/share/python3/"))}


@pytest.mark.parametrize("package", ["pcocc", "pcocc-slurm-plugin"])
def test_an_rpm_has_the_same_files(built: Built, package: str) -> None:
    files = {re.sub(r"(/man/.*)\.gz$", r"\1", name) for name in built.rpms[package][0]}
    theirs = {name for name in files if not re.match(r"/usr/(share/licenses|lib/\.build-id)", name) and "__pycache__" not in name}
    ours = files_of(built, package)
    directories = {name for name in theirs if any(one.startswith(f"{name}/") for one in ours)}
    assert theirs - directories == ours


def test_an_rpms_plugin_is_for_one_release_of_slurm(suite: Suite, built: Built) -> None:
    major, minor = suite.slurm.split(".")
    requires = built.rpms["pcocc-slurm-plugin"][1]
    assert {f"slurm >= {suite.slurm}", f"slurm < {major}.{int(minor) + 1:02}"} <= {*requires}
    assert any(line.startswith("libpython3.") for line in requires)
