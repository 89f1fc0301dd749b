"""This checkout's packages: built in the isolated machine of the node's release, installed in the node as docs/admin.md says."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tests.guide import Typed, find_difference, parse_page
from tests.releaselib.command import NO_ROOT
from tests.releaselib.suites import KEPT, ROOT, RootError, say

from . import ssh
from .place import HERE, MachineError, Place, digest_files, read_record
from .root import SUITE

_RELEASES = ROOT / "build/release"
_SOURCES = ("pcocc_runtime", "spank", "job_submit", "libexec", "etc", "docs", "debian", "packaging", "meson.build",
            "meson_options.txt",
            "pyproject.toml")  # fmt: skip
_PACKAGES = ("pcocc", "pcocc-slurm-plugin")
PAGE = ROOT / "docs/admin.md"
_START = "systemctl restart "  # how Slurm's start begins there
_PATIENCE = 600  # seconds in which Slurm's daemons find each other


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
        raise RootError(error or f"what packages are built with cannot be installed: see {log}")
    if building.returncode:
        raise MachineError(f"the packages of this checkout cannot be built: see {log}")


def is_installed(place: Place) -> bool:
    """Tell whether the machine that runs has what is built, and the site's files as they are."""
    return read_record(place.running) == _digest(place)


def install(place: Place) -> None:
    """Type root's commands of docs/admin.md in a machine that has nothing of ours; each must print what the page shows."""
    _unpack(place, place.path / "packages", "/root/build/packages")
    _unpack(place, HERE / "site", "/root/site")
    for typed in parse_page(PAGE.read_text()):
        if typed.as_root:
            if typed.command.startswith(_START):
                ssh.must_run(place, ["/root/site/before-slurm"])
            _type(place, typed)
    (place.running / "made-of").write_text(_digest(place))


def _type(place: Place, typed: Typed) -> None:
    """Type a command of the page.

    One that asks for the state of Slurm's nodes is repeated until the state is the expected one.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        done = ssh.run(place, ["bash", "-c", f"cd /root; {typed.command}"])
        wrong = f"ends with status {done.returncode}" if done.returncode else find_difference(typed.expected, done.stdout)
        if wrong is None:
            return
        if time.monotonic() > end or not typed.command.startswith("sinfo "):
            raise MachineError(f"{PAGE.name}, line {typed.line}, {typed.command!r}: {wrong}: {done.stdout}{done.stderr}")
        time.sleep(1)  # slurmctld announces nothing


def _digest(place: Place) -> str:
    return digest_files(
        [PAGE, HERE / "site"], (place.path / "packages/made-of").read_text(), (place.saved / "made-of").read_text()
    )


def _unpack(place: Place, tree: Path, target: str) -> None:
    """Copy a directory of this host into the machine."""
    packed = subprocess.run(["tar", "--create", f"--directory={tree}", "."], stdout=subprocess.PIPE, check=True).stdout
    ssh.must_run(place, ["sh", "-ec", f"mkdir -p {target}; tar --extract --no-same-owner --directory={target}"], data=packed)
