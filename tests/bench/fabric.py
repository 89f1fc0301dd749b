"""InfiniBand: keys, the subnet manager's file, and functions: `python -m tests.bench.fabric [NAME...]`, as root.

Each figure is printed beside what is asked. Nothing here fails on a clock.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pcocc_runtime.networks.kinds import InfinibandNetwork
from pcocc_runtime.networks.opensm import render_opensm
from tests.lua.site import INTERPRETERS, ROOT, install_filter
from tests.netns.fabric import release, request
from tests.netns.function_node import NodeWithFunctions
from tests.netns.subnet import Subnet

SITE = "Default=0x7fff, ipoib : ALL=limited, SELF=full ;\n"
POOL = InfinibandNetwork("fabric", "mlx5_0", 0x2000, 0x2000 + 999, max_vms=1000)
FUNCTIONS = 8
_JOB = "account a\npartition p\nqos \nlicenses pkey2001:1\ngres one nic:8(IDX:0-7)\nsets"


def measure_keys(directory: Path, _rounds: int) -> None:
    """The choice of a key in the filter, among 10,000 jobs."""
    scripts = install_filter(directory)
    for interpreter in INTERPRETERS:
        argv = [interpreter, ROOT / "tests/bench/keys.lua", scripts]
        for line in subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines():
            name, mean, middle, most = line.split("\t")
            print(f"{interpreter}: a choice where {name}: {mean} ms (median {middle}, longest {most}; 1 ms asked)")


def measure_pool(directory: Path, rounds: int) -> None:
    """What opensm takes to be up with a pool of 1,000 keys for 1,000 VMs, and with its own smallest file.

    What it takes to read the former is the CPU time that it needs more.
    """
    pool = SITE + "".join(f"{line}\n" for line in render_opensm([POOL]))
    found: dict[str, list[tuple[float, float]]] = {SITE: [], pool: []}
    for _ in range(rounds):
        for text, samples in found.items():
            with tempfile.TemporaryDirectory(dir=directory) as folder:
                subnet = Subnet(Path(folder), {})
                try:
                    samples.append((subnet.opensm(text), subnet.read_cpu()))
                finally:
                    subnet.close()
    (small, cheap), (whole, dear) = (map(statistics.median, zip(*samples, strict=True)) for samples in found.values())
    reading = dear - cheap
    print(f"opensm up with 1,000 keys of 1,000 GUIDs ({len(pool) / 1e6:.0f} MB): {whole:.2f} s (median of {rounds})")
    ratio = whole / (small + reading)
    print(f"with its smallest file {small:.2f} s, reading alone {reading:.2f} s: ratio {ratio:.2f} (1.1 asked)")


def measure_functions(directory: Path, rounds: int) -> None:
    """A set-up of eight VMs with a function of InfiniBand each, and the same without: time, and how often ip(8) runs."""
    directory.chmod(0o755)
    node = NodeWithFunctions(directory, FUNCTIONS)
    stepd = subprocess.Popen(["sleep", "600"])
    try:
        with (node.confdir / "resources.yaml").open("a") as file:
            file.write("plain: {networks: [lan]}\n")
        times: dict[str, list[float]] = {"hpc": [], "plain": []}
        calls = dict.fromkeys(times, 0)
        for number in range(rounds):
            for name in sorted(times, reverse=bool(number % 2)):
                text = request(12, 0, stepd.pid, sets=f"{name}:2", nodes=("one",)).replace(f"{name}:2", f"{name}:{FUNCTIONS}")
                text = text.replace("layout one 0-1", f"layout one 0-{FUNCTIONS - 1}")
                (node.folder / "calls").unlink(missing_ok=True)
                begin = time.monotonic()
                done = node.ask("setup", text.replace("sets", _JOB))
                times[name].append(time.monotonic() - begin)
                assert done.returncode == 0, done.stdout
                calls[name] = len((node.folder / "calls").read_text().splitlines())
                assert node.ask("release", release(12)).returncode == 0
        with_them, without = (statistics.median(times[name]) for name in ("hpc", "plain"))
        more = statistics.median(a - b for a, b in zip(times["hpc"], times["plain"], strict=True))
        print(f"set-up of {FUNCTIONS} VMs: {with_them:.3f} s with a function each, {without:.3f} s without (medians of {rounds})")
        print(f"{more:.3f} s more (0.15 asked), and {calls['hpc'] - calls['plain']} runs of ip(8) more (none asked)")
    finally:
        stepd.kill()
        stepd.wait()
        node.close()


ALL: dict[str, tuple[Callable[[Path, int], None], int]] = {
    "keys": (measure_keys, 1), "pool": (measure_pool, 5), "functions": (measure_functions, 9),
}  # fmt: skip


def main() -> None:
    """Measure what is named, or everything."""
    parser = argparse.ArgumentParser(description="Measure, and print a line for each figure.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; default all")
    parser.add_argument("--rounds", type=int, help="how often each is repeated")
    arguments = parser.parse_args()
    for name in arguments.names or ALL:
        measure, rounds = ALL[name]
        with tempfile.TemporaryDirectory(dir="/root") as directory:
            measure(Path(directory), arguments.rounds or rounds)


if __name__ == "__main__":
    main()
