"""The command tests/node-machine."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

from tests.releaselib.command import NO_ROOT, run_as_root
from tests.releaselib.suites import ROOT, say

from . import machine, project, ssh, status
from .disk import ensure_disk
from .place import USERS, MachineError, Place
from .root import ensure_root

_TESTS = "tests/node"
_USAGE = """tests/node-machine [--dir DIR] test [PYTEST ARGS...]
       tests/node-machine [--dir DIR] build | up [--fresh]
       tests/node-machine [--dir DIR] run [--as USER] [--] COMMAND...
       tests/node-machine [--dir DIR] status | down [--purge]"""
_EPILOG = f"""
A machine under emulation with Debian 13: systemd, cgroup v2, Slurm 24.11, two sockets of two CPUs in two NUMA nodes, huge pages,
an IOMMU, an igb with virtual functions (and after a cold start an NVMe controller, too), and KVM. The machine's disk,
made of Debian's packages, and the memory of a machine that has booted are kept below build/machine until their ingredients
change. `up` continues that machine within seconds, on a layer over its disk, and installs this checkout's packages in it.
Run as root.

    tests/node-machine test                       # all of {_TESTS}, in a machine that ends with them
    tests/node-machine test -k reboot             # with arguments of pytest's
    tests/node-machine up                         # a second time: ends that machine, and starts one with the changes
    tests/node-machine run srun --pcocc-template=tiny:2 -l hostname
    tests/node-machine run --as root journalctl -b
    tests/node-machine status                     # exit 1 when something is wrong, or left without a job
    tests/node-machine down                       # keeps disk and memory; --purge removes them

The exit status is that of the tests or of the command; {NO_ROOT} when the machine cannot be made here, for example
without a mirror of Debian.
"""


def main(argv: list[str]) -> int:
    """Run one command and return the exit status."""
    options = parse_options(argv)
    reason = "the machine's disk is made with chroot and mounts"
    return run_as_root("node-machine", reason, 1, lambda: _COMMANDS[options.command](options))


def parse_options(argv: list[str]) -> argparse.Namespace:
    """Return the options; what follows `run` and `test` is the command's, and pytest's."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="tests/node-machine", usage=_USAGE, description="A compute node in a virtual machine.",
                                     epilog=_EPILOG, formatter_class=shape, allow_abbrev=False)  # fmt: skip
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", default=ROOT / "build/machine", help="where it is kept (build/machine)"
    )
    parser.add_argument("command", choices=_COMMANDS, metavar="COMMAND", help=", ".join(_COMMANDS))
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.place = Place(options.dir.resolve())
    if options.command == "test":
        return options
    own = argparse.ArgumentParser(prog=f"tests/node-machine {options.command}", usage=_USAGE, allow_abbrev=False)
    if options.command in ("build", "up"):
        own.add_argument("--fresh", action="store_true", help="make all of it anew: what Debian has today")
    elif options.command == "run":
        own.add_argument("--as", dest="user", choices=("root", *USERS), default=USERS[0], help=f"the user ({USERS[0]})")
        own.add_argument("words", nargs=argparse.REMAINDER)
    elif options.command == "down":
        own.add_argument("--purge", action="store_true", help="remove all that is kept, too")
    return own.parse_args(options.words, options)


def run_build(options: argparse.Namespace) -> int:
    """Make what is kept."""
    options.place.lock()
    _ensure_kept(options.place, options.fresh)
    return 0


def _ensure_kept(place: Place, fresh: bool) -> list[str]:
    """Make what is missing, the packages at the same time as the rest; return the names of what was made anew."""
    made: list[str] = []

    def ensure(name: str, make: Callable[[], bool]) -> None:
        start = time.monotonic()
        if make():
            made.append(name)
            say(f"{name}: made in {time.monotonic() - start:.0f} s")

    with ThreadPoolExecutor(1) as beside:
        packages = beside.submit(ensure, "packages", lambda: project.ensure_built(place))
        ensure("root", lambda: ensure_root(place, fresh))
        ensure("disk", lambda: ensure_disk(place))
        if packages.done():
            packages.result()  # before the longest part, which is useless without packages
        ensure("saved machine", lambda: machine.ensure_saved(place))
        packages.result()
    return made


def run_up(options: argparse.Namespace) -> int:
    """Bring the machine up, with this checkout in it."""
    options.place.lock()
    _up(options.place, options.fresh)
    return 0


def _up(place: Place, fresh: bool = False) -> list[str]:
    """Bring the machine up, unless one runs with all that is wanted; return what was made anew."""
    if fresh:
        machine.stop(place)
    made = _ensure_kept(place, fresh)
    if machine.find_pid(place) is not None and project.is_installed(place):
        return made
    machine.stop(place)
    start = time.monotonic()
    machine.restore(place)
    say(f"the machine continues, after {time.monotonic() - start:.1f} s")
    start = time.monotonic()
    project.install(place)
    say(f"installed, and its node is idle, after {time.monotonic() - start:.1f} s")
    return made


def run_command(options: argparse.Namespace) -> int:
    """Become ssh, which runs a command in the machine."""
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        raise MachineError("name a command: tests/node-machine run [--as USER] [--] COMMAND...")
    _ensure_up(options.place)
    terminal = ["-t"] if os.isatty(0) and os.isatty(1) else []
    argv = [*ssh.render_argv(options.place, options.user, *terminal), shlex.join(words)]
    os.execvp(argv[0], argv)


def _ensure_up(place: Place) -> None:
    if machine.find_pid(place) is None:
        raise MachineError("the machine is not up: run tests/node-machine up")


def run_tests(options: argparse.Namespace) -> int:
    """Run the tests in a machine that is continued for them, and say in one line what came of it."""
    place, start = options.place, time.monotonic()
    place.lock()
    machine.stop(place)
    words = (
        options.words
        if any(word.partition("::")[0].startswith(_TESTS) for word in options.words)
        else [_TESTS, *options.words]
    )
    report = place.path / "tests.xml"
    report.unlink(missing_ok=True)
    try:
        made = _up(place)
        argv = [
            ROOT / "build/venv/bin/python", "-m", "pytest", f"--junit-xml={report}", "--durations=20", "--timeout=3600",
            *words,
        ]
        done = subprocess.run(argv, cwd=ROOT, env={**os.environ, "PCOCC_NODE_MACHINE": str(place.path)}, check=False)
    finally:
        machine.stop(place)
    counts = parse_report(report.read_text()) if report.exists() else "no tests"
    say(f"{counts}, {time.monotonic() - start:.0f} s in all; made anew: {', '.join(made) or 'nothing'}")
    return done.returncode


def parse_report(text: str) -> str:
    """Return how many tests passed, failed and were skipped, from pytest's report in XML."""
    suites = list(ElementTree.fromstring(text).iter("testsuite"))
    total, failed, errors, skipped = (
        sum(int(one.get(key, "0")) for one in suites) for key in ("tests", "failures", "errors", "skipped")
    )
    parts = [f"{total - failed - errors - skipped} tests passed", f"{failed + errors} failed" if failed + errors else "",
             f"{skipped} skipped" if skipped else ""]  # fmt: skip
    return ", ".join(part for part in parts if part)


def run_status(options: argparse.Namespace) -> int:
    """Show what is there."""
    return 0 if status.show(options.place) else 1


def run_down(options: argparse.Namespace) -> int:
    """End the machine."""
    options.place.lock()
    machine.stop(options.place)
    if options.purge:
        subprocess.run(["rm", "-rf", "--one-file-system", options.place.path], check=True)
    return 0


_COMMANDS = {"build": run_build, "up": run_up, "run": run_command, "test": run_tests, "status": run_status, "down": run_down}
