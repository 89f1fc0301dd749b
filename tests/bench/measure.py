"""The figures of SPECIFICATION.md, each beside a baseline of the same run: `make bench`, or with the names of some.

Nothing here fails on a clock. The box is used alone (its lock is held), and what else the machine does is noise.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import boot, checkpoint, figures, plain, start
from tests.boot.box import ROOT, STATE, Box

ALL: dict[str, tuple[Callable[[Box, int], list[figures.Figure]], int]] = {
    "plain": (plain.measure, 40),
    "attach": (plain.measure_attach, 15),
    "start": (start.measure, 3),
    "node": (start.measure_node, 3),
    "boot": (boot.measure, 3),
    "memory": (boot.measure_memory, 1),
    "checkpoint": (checkpoint.measure, 3),
}


def main() -> None:
    """Measure what is named, or everything."""
    parser = argparse.ArgumentParser(description="Measure, and print a line for each figure.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; default all")
    parser.add_argument("--rounds", type=int, help="how often each is repeated")
    parser.add_argument("--write", action="store_true", help="put the table into SPECIFICATION.md")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(ALL))
    if unknown:
        parser.error(f"{unknown[0]!r} is not measured here; choose of {', '.join(ALL)}")
    with (STATE / "tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for words in (["up", "--cpus", "8"], ["image", "tiny"]):
            subprocess.run([ROOT / "tests/box", *words], check=True, stdout=subprocess.DEVNULL)
        found = []
        for name in arguments.names or ALL:
            measure, rounds = ALL[name]
            for one in measure(Box(), arguments.rounds or rounds):
                print(one.line, flush=True)
                found.append(one)
    if arguments.write:
        figures.write(found, datetime.date.today().isoformat())


if __name__ == "__main__":
    main()
