"""This checkout, built in the isolated machine of the node's release, and installed in the node as README says."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.releaselib.cli import NO_ROOT
from tests.releaselib.suites import KEPT, ROOT, RootError, say

from . import ssh
from .place import HERE, MachineError, Place, digest_files, read_record
from .root import SUITE

RELEASES = ROOT / "build/release"
_TREE = "node-machine"  # what is installed, below the release's build/
_BUILD = f"""
rm -rf build/{_TREE}
meson setup build/node-meson >/dev/null 2>&1 || meson setup --wipe build/node-meson
DESTDIR=$PWD/build/{_TREE} meson install -C build/node-meson
"""
_SOURCES = ("pcocc_runtime", "spank", "job_submit", "libexec", "etc", "docs/man", "meson.build", "meson_options.txt", "pyproject.toml")


def ensure_built(place: Place) -> bool:
    """Build this checkout, unless that has been done; return whether it was. RootError when the release cannot be had."""
    record, kept = RELEASES / SUITE / "made-of", place.path / "built"
    wanted = digest_files([ROOT / name for name in _SOURCES], record.read_text() if record.exists() else "", _BUILD)
    if read_record(kept) == wanted:
        return False
    say("building this checkout")
    _run_release(place.path / "build.log")
    subprocess.run(["rm", "-rf", kept], check=True)
    kept.mkdir()
    subprocess.run(["cp", "-a", RELEASES / SUITE / "root" / KEPT[1:] / _TREE, kept / "tree"], check=True)
    (kept / "made-of").write_text(wanted)
    return True


def _run_release(log: Path) -> None:
    """Build in the isolated machine, whose root is made when there is none; what it says of itself is shown."""
    argv = [ROOT / "tests/release", "--roots", RELEASES, SUITE, "--run", "bash", "-ec", _BUILD]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with log.open("w") as stream, subprocess.Popen(argv, text=True, **pipes) as building:
        for line in building.stdout or ():
            stream.write(line)
            if line.startswith("release: "):
                say(line.removeprefix("release: ").rstrip())
                last = line.removeprefix("release: error: ").rstrip()
    if building.returncode == NO_ROOT:
        raise RootError(last)
    if building.returncode:
        raise MachineError(f"this checkout cannot be built on {SUITE}: see {log}")


def ensure_installed(place: Place) -> bool:
    """Install what is built in the machine that runs, unless it has it; return whether it was installed."""
    wanted = digest_files([HERE / "install", HERE / "site"], (place.path / "built/made-of").read_text())
    if read_record(place.running) == wanted:
        return False
    say("installing it in the machine")
    (place.running / "made-of").unlink(missing_ok=True)
    ssh.must_run(place, ["rm", "-rf", "/opt/pcocc", "/root/site"])
    _unpack(place, place.path / "built/tree", "/")
    _unpack(place, HERE / "site", "/root/site")
    ssh.must_run(place, ["bash", "-s"], data=(HERE / "install").read_bytes())
    (place.running / "made-of").write_text(wanted)
    return True


def _unpack(place: Place, tree: Path, target: str) -> None:
    """Put a directory of this host into one of the machine."""
    argv = ["tar", "--create", "--owner=0", "--group=0", "--sort=name", f"--directory={tree}", "."]
    packed = subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout
    ssh.must_run(place, ["sh", "-ec", f"mkdir -p {target}; tar -x --no-overwrite-dir -C {target}"], data=packed)
