"""For each release: its packages, and a clean machine in which they are installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.packaging.machine import Built, Machine, clean_machine
from tests.releaselib.suites import KEPT, PACKAGED, ROOT, SUITES, Suite

_BUILD = """
packaging/build deb
packaging/build rpm
for file in build/packages/*.rpm; do
  rpm --query --package --list "$file" >"$file.files"
  rpm --query --package --requires "$file" >"$file.requires"
done
command -v lintian >/dev/null || apt-get -qq install --yes lintian >/dev/null
lintian --allow-root --fail-on none build/packages/*.changes >build/packages/lintian 2>&1
"""
_CONFIGURE = """
printf '%s\\n' ClusterName=one SlurmctldHost=$(hostname) \\
    "$(slurmd -C | head -n 1)" "PartitionName=main Nodes=ALL" >/etc/slurm/slurm.conf
"""


@pytest.fixture(scope="session", params=PACKAGED)
def suite(request: pytest.FixtureRequest) -> Suite:
    """The release."""
    return SUITES[request.param]


@pytest.fixture(scope="session")
def built(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Its packages, built in the machine that the release's other tests run in."""
    done = subprocess.run(
        [ROOT / "tests/release", suite.name, "--run", "bash", "-ec", _BUILD], stdin=subprocess.DEVNULL,
        capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    place = ROOT / "build/release" / suite.name / "root" / KEPT[1:] / "packages"
    # the next command that uses the root, such as tests/node-machine, may build there, too
    found = tmp_path_factory.mktemp("built")
    for file in place.iterdir():
        if file.is_file():
            shutil.copy(file, found)
    rpms = {
        re.split(r"-\d", path.name)[0]: [path.with_name(f"{path.name}.{what}") for what in ("files", "requires")]
        for path in found.glob("*.rpm")
    }
    return Built(
        {path.name.partition("_")[0]: path for path in found.glob("*.deb")},
        (found / "lintian").read_text(),
        {name: (files.read_text().splitlines(), requires.read_text().splitlines()) for name, (files, requires) in rpms.items()},
    )


@pytest.fixture(scope="session")
def clean(suite: Suite, built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with the release's Slurm and, in /srv/files, the packages."""
    with clean_machine(suite, tmp_path_factory.mktemp(suite.name)) as machine:
        machine.copy(*built.files.values())
        yield machine


@pytest.fixture(scope="session")
def installed(clean: Machine) -> Machine:
    """The same, in which the packages are installed with what they depend on, and no more."""
    clean.run(f"{_CONFIGURE}apt-get -qq install --yes /srv/files/pcocc*_*.deb", seconds=600)
    return clean
