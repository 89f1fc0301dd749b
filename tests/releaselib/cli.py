"""The command tests/release."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from . import machine
from .command import NO_ROOT, run_as_root
from .root import ensure_root, remove_root
from .suites import INSIDE, ROOT, SELECTION, SUITES, Place, say

_OWN_ERROR = 125
_UNPREPARED = "release: error: what the tests need cannot be installed in the machine"
# what bash runs in the machine, with arguments of pytest's
TESTS = f'tests/prepare || {{ echo "{_UNPREPARED}" >&2; exit {NO_ROOT}; }}; exec build/venv/bin/python -m pytest "$@"'
_EPILOG = f"""
A release is Debian's, with its Slurm, QEMU and Python:

{chr(10).join(f"    {one.name:10} Slurm {one.slurm}{', QEMU of its backports' if one.also else ''}" for one in SUITES.values())}

Its root directory is made once, from the mirror that this machine's apt uses, and kept below build/release until its
ingredients change. The machine has this checkout as {INSIDE}, with a build/ of its own, and reaches the network; everything
else is its own, and it ends with the tests. Run as root; other work on this host is not disturbed.

    tests/release trixie                                  # the tests of a release: build, plugin, a real cluster
    tests/release trixie tests/unit -k completion         # with arguments of pytest's
    tests/release trixie --shell                          # to look around: tests/box up, and so on
    tests/release sid --fresh --run tests/box up
    tests/release --clean                                 # removes the roots

The exit status is that of the tests or of the command; {NO_ROOT} when the root, or something that the tests need in it, cannot be
had today; {_OWN_ERROR} for another error of tests/release itself.
"""


def main(argv: list[str]) -> int:
    """Run one command and return the exit status."""
    options = parse_options(argv)
    reason = "the machine is made of namespaces, mounts and cgroups"
    return run_as_root("release", reason, _OWN_ERROR, lambda: _clean(options) if options.clean else _run(options))


def parse_options(argv: list[str]) -> argparse.Namespace:
    """Return the options; what follows the release is a word of ours at its front, and the command's from then on."""
    parser = argparse.ArgumentParser(
        prog="tests/release", usage="tests/release [--roots DIR] SUITE [--fresh] [--shell | --run COMMAND... | PYTEST ARGS...]\n"
        "       tests/release [--roots DIR] --clean", description="Runs the tests on another release of Debian.", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)  # fmt: skip
    parser.add_argument(
        "--roots", type=Path, metavar="DIR", default=ROOT / "build/release", help="where the roots are (build/release)"
    )
    parser.add_argument("--clean", action="store_true", help="remove all roots")
    parser.add_argument("--fresh", action="store_true", help="make the root anew: what a release has today")
    parser.add_argument("--shell", action="store_true", help="run a shell in place of the tests")
    parser.add_argument("--run", action="store_true", help="run a command in place of the tests")
    parser.add_argument("suite", nargs="?", metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    while options.words[:1] in (["--fresh"], ["--shell"], ["--run"]):
        setattr(options, options.words.pop(0)[2:], True)
    if not options.clean and options.suite not in SUITES:
        parser.error(f"name one of {', '.join(SUITES)}" + (f": {options.suite!r} is none of them" if options.suite else ""))
    if (options.run and not options.words) or (options.clean and options.suite):
        parser.error("--run is followed by a command" if options.run else "--clean stands alone")
    return options


def _run(options: argparse.Namespace) -> int:
    suite, place = SUITES[options.suite], Place(options.roots.resolve() / options.suite)
    place.lock()
    ensure_root(suite, place, options.fresh)
    if options.shell:
        command = ["bash", "-l"]
    elif options.run:
        command = options.words
    else:
        command = [
            "bash", "-c", TESTS, "tests",
            *(options.words or ("-n", "2", "--no-loadscope-reorder", "--durations=20", *SELECTION)),
        ]
    say(f"{suite.name}: starting its machine")
    status = machine.run(suite, place, command, os.environ)
    say(f"{suite.name}: ended with status {status}; its machine is gone")
    return status


def _clean(options: argparse.Namespace) -> int:
    for path in sorted(options.roots.glob("*/")):
        if path.name in SUITES:
            place = Place(path)
            place.lock()
            say(f"removing the root of {path.name}")
            remove_root(place)
            place.log.unlink(missing_ok=True)
            path.rmdir()
    return 0
