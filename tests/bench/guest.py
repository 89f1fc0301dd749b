"""What a guest's disk, network, memory and CPUs give, against a QEMU that a careful expert types, pairs.HAND: `python -m
tests.bench.guest [NAME...]`.

As root, on a machine with gcc and, for the disk and the network, fio and iperf3. Nothing here fails on a clock.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pcocc_runtime.documents.hardware import GuestNode, Shape, Topology
from pcocc_runtime.qemu.memory import Backing, plan_memory
from pcocc_runtime.qemu.qmp import render_command
from tests.bench.figures import Figure
from tests.bench.guest_network import measure_network
from tests.bench.pairs import CPUS, HAND, boot_pair, compare, in_turns, open_kvm
from tests.qemu.guests import build
from tests.qemu.vm import ROOT, Vm

LARGE = 512  # MiB
_JOBS = {
    "4 KiB random read at depth 32": ("randread", "4k", "iops"), "4 KiB random write at depth 32": ("randwrite", "4k", "iops"),
    "sequential read": ("read", "1m", "bw"), "sequential write": ("write", "1m", "bw"),
}  # fmt: skip


def measure_disk(data: Path, guest: Path, rounds: int) -> list[Figure]:
    """fio(1) on a raw drive with `cache: none`, all of it noise."""
    vms, figures = boot_pair(data, guest), []
    try:
        for what, (kind, size, field) in _JOBS.items():
            command = (
                f"chroot /h fio --name=x --filename=/dev/vda --rw={kind} --bs={size} --iodepth=32 --ioengine=libaio --direct=1"
                f" --time_based --runtime=4 --ramp_time=1 --thread --output-format=json 2>/dev/null"
            )

            def ask(vm: Vm, command: str = command, kind: str = kind, field: str = field) -> float:
                text = vm.run(command, 120)
                [job] = json.loads(text[text.index("{") :])["jobs"]
                return float(job["write" if "write" in kind else "read"][field])

            found = in_turns(rounds, {name: lambda vm=vm: ask(vm) for name, vm in vms.items()})  # type: ignore[misc]
            figures.append(compare(f"disk: {what}", {"iops": "a second", "bw": "KiB/s"}[field], found, "0.97"))
    finally:
        for vm in vms.values():
            vm.close()
    return figures


def _compile(data: Path) -> Path:
    """Return the program of kernels.c."""
    binary = data / "kernels"
    source = ROOT / "tests/bench/kernels.c"
    subprocess.run(["gcc", "-O3", "-static", "-pthread", "-o", binary, source, "-lm"], check=True)
    binary.chmod(0o755)
    return binary


def measure_compute(data: Path, guest: Path, rounds: int) -> list[Figure]:
    """STREAM's triad and an LU factorization in the guests; with KVM also against a process of the host's."""
    binary = _compile(data)
    vms, figures = boot_pair(data, guest), []
    host = open_kvm() is not None
    try:
        for what, words, unit in (
            ("STREAM triad", f"stream {CPUS} 96", "MB/s"), ("LU of 400 x 400", "lu 400", "Mflop/s"),
        ):  # fmt: skip
            ways = {name: lambda vm=vm, words=words: float(vm.run(f"/h{binary} {words}", 300)) for name, vm in vms.items()}
            figures.append(compare(f"compute: {what}", unit, in_turns(rounds, ways), "0.97"))  # type: ignore[arg-type]
            if host:
                run = [binary, *words.split()]
                ways["hand"] = lambda run=run: float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
                found = in_turns(rounds, ways)  # type: ignore[arg-type]
                figures.append(compare(f"compute: {what}, against the host", unit, found, "0.95"))
    finally:
        for vm in vms.values():
            vm.close()
    if not host:
        print("compute: no KVM here, so that guests are not compared with the host")
    return figures


def measure_prealloc(_data: Path, _guest: Path, rounds: int) -> list[Figure]:
    """The time until QEMU has all memory of 8 vCPUs, less what it takes without: with pcocc's words, and with an expert's."""
    cpus = tuple(range(8))
    own = Topology(Shape(8, cores=8), cpus, nodes=(GuestNode(0, cpus, LARGE),))
    has = {"host-nodes", "prealloc-threads"}

    def ours(prealloc: bool) -> list[str]:
        objects, machine, _nodes = plan_memory(LARGE, own, Backing(prealloc=prealloc), False, has)
        return [*objects, "-machine", f"none{machine}", "-m", str(LARGE)]

    def by_hand(prealloc: bool) -> list[str]:
        words = ",prealloc=on,prealloc-threads=8" if prealloc else ""
        return [*f"-object memory-backend-ram,id=ram,size={LARGE}M{words} -machine none,memory-backend=ram -m {LARGE}".split()]

    ways = {
        name: lambda words=words: _run_qemu(words(True)) - _run_qemu(words(False))
        for name, words in (("pcocc", ours), ("hand", by_hand))
    }
    found = in_turns(rounds, ways)  # type: ignore[arg-type]
    return [compare(f"{LARGE} MiB for 8 vCPUs preallocated", "s more than without", found, "1.1")]


def _run_qemu(words: Sequence[str]) -> float:
    """Return the seconds that a QEMU without a guest takes to start and end."""
    begin = time.monotonic()
    argv = ["qemu-system-x86_64", "-nodefaults", "-display", "none", *words, "-qmp", "stdio"]
    subprocess.run(argv, input=render_command("qmp_capabilities") + render_command("quit"), capture_output=True, check=True)
    return time.monotonic() - begin


ALL: dict[str, tuple[Callable[[Path, Path, int], list[Figure]], int]] = {
    "disk": (measure_disk, 5), "network": (measure_network, 7), "prealloc": (measure_prealloc, 7),
    "compute": (measure_compute, 5),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is named, or everything, and print a line for each figure."""
    parser = argparse.ArgumentParser(description="Measure guests against a QEMU by hand, and print a line for each figure.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; default all")
    parser.add_argument("--rounds", type=int, help="how often each is repeated")
    arguments = parser.parse_args(argv)
    unknown = sorted(set(arguments.names) - set(ALL))
    if unknown:
        parser.error(f"{unknown[0]!r} is not measured here; choose of {', '.join(ALL)}")
    guest = ROOT / "build/guest"
    build("kernel", guest)
    print("the other one, by hand:", *HAND.split(), sep=" ")
    for name in arguments.names or ALL:
        measure, rounds = ALL[name]
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as directory:
            for figure in measure(Path(directory), guest, arguments.rounds or rounds):
                print(figure.line, flush=True)


if __name__ == "__main__":
    main()
