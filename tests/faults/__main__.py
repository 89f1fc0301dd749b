"""Runs the fault campaign on the box, as root: `python -m tests.faults [--times N] [--only NAME ...] [--list]`.

Each fault is done to jobs on the box, and after each time the box is checked. The results are kept in build/faults.json,
from which docs/faults.md is written. Results of several runs are added up until a fault, or the code it is done to, changes
(`--anew`).
"""

from __future__ import annotations

import argparse
import fcntl
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable

from tests.boot.box import ROOT, STATE, Box
from tests.faults import results, scene
from tests.faults.table import FAULTS, Fault


def main() -> int:
    """Run what is asked for; return 0 when all is as it must be."""
    names = [one.name for one in FAULTS]
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--times", type=int, default=1, help="how often each fault is done")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help="run only these faults"
    )
    parser.add_argument("--anew", action="store_true", help="forget the earlier results of these faults")
    parser.add_argument("--list", action="store_true", help="list all faults")
    options = parser.parse_args()
    if options.list:
        print(*(f"{one.name}: {one.what}, {one.when}: {one.after}" for one in FAULTS), sep="\n")
        return 0
    if options.anew:
        results.forget(options.only)
    prepare()
    return run([one for one in FAULTS if one.name in options.only], options.times)


def prepare() -> None:
    """Have the box up, for this campaign alone, and without jobs of a box that was not taken down."""
    STATE.mkdir(exist_ok=True)
    globals()["_lock"] = lock = (STATE / "tests.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    for words in (["down"], ["up", "--cpus", "8"], ["image", "tiny"]):
        subprocess.run([ROOT / "tests/box", *words], stdin=subprocess.DEVNULL, check=True)


def run(faults: Iterable[Fault], times: int) -> int:
    """Do each fault so many times, in turns; write the results after each."""
    failed = 0
    for turn in range(times):
        for one in faults:
            begin = time.monotonic()
            problem = try_fault(one)
            failed += bool(problem)
            results.add(one, time.monotonic() - begin, problem)
            print(
                f"{turn + 1}/{times} {one.name}: {problem or 'well'} ({time.monotonic() - begin:.0f} s)",
                flush=True,
            )
    return 1 if failed else 0


def try_fault(one: Fault) -> str:
    """Do a fault once; return what is wrong, nothing when all is as it must be."""
    box = Box()
    problem = ""
    for what in (one.play, scene.ensure_well):
        try:
            what(box)
        except Exception as error:  # the outermost layer: the campaign goes on
            problem = problem or f"{type(error).__name__}: {error}"
            traceback.print_exc()
            print("\n".join(box.history[-12:]), flush=True)
    for process in list(box.started):
        process.kill()
        box.finish(process, 20)
    if problem:
        recover(box)
    return problem


def recover(box: Box) -> None:
    """Bring the box back to a state in which nothing runs, for the next fault."""
    for words in (
        "scancel --signal=KILL --user=alice",
        "scancel --user=alice",
        "scontrol update nodename=n[1-2] state=resume",
    ):
        box.run(words, user="root")
    subprocess.run([ROOT / "tests/box", "status", "--wait", "60"], stdout=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    sys.exit(main())
