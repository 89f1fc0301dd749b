"""This checkout's packages: built in the isolated machine of the node's release, installed in the node as docs/admin.md says."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.releaselib.cli import NO_ROOT
from tests.releaselib.suites import KEPT, ROOT, RootError, say

from . import ssh
from .place import HERE, MachineError, Place, digest_files, read_record
from .root import SUITE

_RELEASES = ROOT / "build/release"
_SOURCES = ("pcocc_runtime", "spank", "job_submit", "libexec", "etc", "docs", "debian", "packaging", "meson.build",
            "meson_options.txt",
            "pyproject.toml")  # fmt: skip
_PACKAGES = ("pcocc", "pcocc-slurm-plugin")


def ensure_built(place: Place) -> bool:
    """Build this checkout, unless that has been done; return whether it was. RootError when the release cannot be had."""
    built = place.path / "packages"
    wanted = digest_files(ROOT / name for name in _SOURCES)
    if read_record(built) == wanted:
        return False
    say("building the packages of this checkout")
    _build(place.path / "packages.log")
    subprocess.run(["rm", "-rf", built], check=True)
    built.mkdir()
    made = _RELEASES / SUITE / "root" / KEPT[1:] / "packages"
    for name in _PACKAGES:
        subprocess.run(["cp", *made.glob(f"{name}_*.deb"), built], check=True)
    (built / "made-of").write_text(wanted)
    return True


def _build(log: Path) -> None:
    """Build in the isolated machine, whose root is made when there is none; what it says of itself is shown."""
    argv = [ROOT / "tests/release", "--roots", _RELEASES, SUITE, "--run", "packaging/build", "deb"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    error = ""
    with log.open("w") as stream, subprocess.Popen(argv, text=True, **pipes) as building:
        for line in building.stdout or ():
            stream.write(line)
            if line.startswith("release: "):
                say(line.removeprefix("release: ").rstrip())
                error = line.removeprefix("release: error: ").rstrip()
    if building.returncode == NO_ROOT:
        raise RootError(error)
    if building.returncode:
        raise MachineError(f"the packages of this checkout cannot be built: see {log}")


def is_installed(place: Place) -> bool:
    """Tell whether the machine that runs has what is built, and the site's files as they are."""
    return read_record(place.running) == _digest(place)


def install(place: Place) -> None:
    """Install what is built in a machine that has nothing of it, and wait until its node is idle."""
    _unpack(place, place.path / "packages", "/root/packages")
    _unpack(place, HERE / "site", "/root/site")
    ssh.must_run(place, ["bash", "-s"], data=(HERE / "install").read_bytes())
    (place.running / "made-of").write_text(_digest(place))


def _digest(place: Place) -> str:
    return digest_files(
        [HERE / "install", HERE / "site"], (place.path / "packages/made-of").read_text(),
        (place.saved / "made-of").read_text(),
    )


def _unpack(place: Place, tree: Path, target: str) -> None:
    """Copy a directory of this host into the machine."""
    packed = subprocess.run(["tar", "--create", f"--directory={tree}", "."], stdout=subprocess.PIPE, check=True).stdout
    ssh.must_run(place, ["sh", "-ec", f"mkdir {target}; tar --extract --no-same-owner --directory={target}"], data=packed)
