"""Feeds the parsers of foreign bytes with a million inputs each: `python -m tests.fuzz [TARGET...] [--count N] [--seed S]`."""

from __future__ import annotations

import argparse
import mmap
import os
import struct
import sys
import time

from tests.fuzz.engine import Found, Target, fuzz, make_input
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Run what was asked for, on all CPUs; return 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all"
    )
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs for each (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=int(time.strftime("%Y%m%d")),
        help="another number makes other inputs (default: the date)",
    )
    asked = parser.parse_args()
    found = [name for name in asked.targets or TARGETS if not _run(TARGETS[name], asked.seed, asked.count)]
    return 1 if found else 0


def _run(target: Target, seed: int, count: int) -> bool:
    """Run a target in a process for each CPU; tell what was found."""
    begin, workers = time.monotonic(), os.cpu_count() or 1
    places = mmap.mmap(-1, 8 * workers)  # where each is, for those that end without a word
    children = []
    for number in range(workers):
        pid = os.fork()
        if pid == 0:
            _work(target, seed, range(number, count, workers), places, number)
        children.append(pid)
    ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    for number, end in enumerate(ends):
        if end < 0:
            (index,) = struct.unpack_from("Q", places, 8 * number)
            print(
                f"{target.name}: input {index} of seed {seed} ended it by signal {-end}\n "
                f" {make_input(target, seed, index)[:2000]!r}"
            )
    said = "no fault" if not any(ends) else "FAULTS"
    print(f"{target.name}: {count} inputs of seed {seed} in {time.monotonic() - begin:.0f} s: {said}", flush=True)
    return not any(ends)


def _work(target: Target, seed: int, indices: range, places: mmap.mmap, number: int) -> None:
    status = 1
    try:
        fuzz(target, seed, indices, lambda index: struct.pack_into("Q", places, 8 * number, index))
        status = 0
    except Found as error:
        print(error, flush=True)
    finally:
        os._exit(status)


sys.exit(main())
