"""How long slurmctld waits for the filter, by every Lua that is here: `python -m tests.bench.filter`.

Nothing fails on a clock; tests/lua/bounds.lua counts what is done instead.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests.lua.site import INTERPRETERS, ROOT, install_filter, write_policy

_PROMISES = {"none of ours": 0.01, "mebibyte": 1.0, "largest": 2.0}  # ms


def main() -> None:
    """Print a line for each interpreter and group of inputs (tests/lua/inputs.lua)."""
    with tempfile.TemporaryDirectory() as directory:
        policy, scripts = write_policy(Path(directory)), install_filter(Path(directory))
        for interpreter in INTERPRETERS:
            argv = [interpreter, ROOT / "tests/bench/filter.lua", scripts, ROOT / "tests/lua", policy]
            done = subprocess.run(argv, capture_output=True, text=True, check=True)
            for line in done.stdout.splitlines():
                group, taken, name = line.split("\t")
                print(f"{interpreter}: {group}: {taken} ms, at most {_PROMISES[group]:g} asked; longest: {name}")


if __name__ == "__main__":
    main()
