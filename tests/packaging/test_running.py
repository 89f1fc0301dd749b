"""The packages on a node where VMs run: an upgrade leaves the VMs alone, a removal ends them and leaves nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.machine import Built, Machine, clean_machine
from tests.releaselib.suites import ROOT, Suite

pytestmark = pytest.mark.packages

_SCRIPT = (Path(__file__).parent / "running.sh").read_text()
_NEXT = "9:1"
_MARK = "/tmp/next-version"


@pytest.fixture
def node(suite: Suite, built: Built, tmp_path: Path) -> Iterator[Machine]:
    """A clean machine that has the packages, their next version, and a guest's image in /srv/files."""
    subprocess.run([ROOT / "tests/box", "image", "tiny"], check=True, stdin=subprocess.DEVNULL, capture_output=True)
    with clean_machine(suite, tmp_path) as machine:
        machine.copy(Path("/var/lib/pcocc-box/images/tiny.qcow2"), *built.files.values())
        for package in ("pcocc", "pcocc-slurm-plugin"):
            make_next(built.files[package], tmp_path / package, machine.place.root / f"srv/files/next_{package}.deb")
        yield machine


def make_next(package: Path, tree: Path, target: Path) -> None:
    """Make a later version of a package, whose launcher leaves a mark."""
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    (version,) = (line for line in control.read_text().splitlines() if line.startswith("Version: "))
    number = version.removeprefix("Version: ")
    control.write_text(
        control.read_text().replace(version, f"Version: {_NEXT}").replace(f"pcocc (= {number})", f"pcocc (= {_NEXT})")
    )
    launcher = tree / "usr/lib/pcocc/pcocc_runtime/vm/launcher.py"
    if launcher.exists():
        launcher.write_text(f"{launcher.read_text()}\nopen({_MARK!r}, 'w').close()\n")
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, target], check=True, stdout=subprocess.DEVNULL)


def test_vms_outlive_an_upgrade_and_new_jobs_have_the_new_version(node: Machine) -> None:
    script = f"""{_SCRIPT}
    start_job one
    ls {_MARK} 2>&1 || true
    apt-get -qq install --yes /srv/files/next_*.deb >/dev/null
    start_job two
    stat -c %U {_MARK}
    end_job one
    end_job two
    show_left
    """
    said = [
        line
        for line in node.run(script, seconds=600).splitlines()
        if line.startswith(("one: ", "two: ", "ls: ", "alice", "left: "))
    ]
    missing = f"ls: cannot access '{_MARK}': No such file or directory"
    assert said == ["one: vm0", missing, "two: vm0", "alice", "one: still vm0", "two: still vm0", "left: table inet pcocc"]


def test_a_removal_ends_the_vms_and_leaves_nothing(node: Machine) -> None:
    script = f"""{_SCRIPT}
    start_job one
    apt-get -qq remove --yes pcocc 2>&1 | grep '^pcocc: '
    show_left
    ls -d /run/pcocc /etc/slurm/plugstack.conf.d/pcocc.conf 2>&1 || true
    scancel --user=alice
    as_alice srun echo plain jobs run
    """
    said = node.run(script, seconds=600).splitlines()
    gone = [
        f"ls: cannot access '{path}': No such file or directory"
        for path in ("/run/pcocc", "/etc/slurm/plugstack.conf.d/pcocc.conf")
    ]
    assert "one: vm0" in said and "pcocc: job 1 loses its VMs" in said and "left: " in said and {*gone} <= {*said}
    assert said[-1] == "plain jobs run"
