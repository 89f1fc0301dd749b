"""The figure of a save in SPECIFICATION.md, against copying the same file in the same run: part of `make bench`, as root."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.qemu import saving
from tests.qemu.vm import Vm

WRITTEN, ROUNDS = 1 << 30, 5
PAUSE = 10  # seconds for the disk to rest: a virtual one slows down after so many bytes


def copy(source: Path, target: Path) -> float:
    """Return the seconds that a copy takes until it is on disk, as a saved layer is when the command ends."""
    start = time.monotonic()
    subprocess.run(["cp", "--reflink=never", source, target], check=True)
    subprocess.run(["sync", target], check=True)
    return time.monotonic() - start


def write(vm: Vm, start: int, byte: int, size: str) -> None:
    """Fill a part of the VM's disk, as its guest would."""
    saving.ask_qemu(vm, "human-monitor-command", **{"command-line": f'qemu-io disk0 "write -P {byte} {start} {size}"'})


def save(vm: Vm, name: str) -> float:
    """Return the seconds that a save takes."""
    start = time.monotonic()
    saving.save(vm, f"--dest={name}")
    return time.monotonic() - start


def main() -> None:
    """Fill the disk of a VM without a guest through its QEMU, and save it."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        data = Path(name)
        home = saving.Home(data, size=2 * WRITTEN)
        vm = Vm(data, data, replace(home.group(), kernel=None, initrd=None, append=None))
        try:
            saving.wait_for_monitor(vm)
            for start in range(0, WRITTEN, 64 << 20):
                write(vm, start, start >> 26 | 128, "64M")
            disk = data / f"scratch{vm.job}/vm0.qcow2"
            saves, copies = [], []
            for number in range(ROUNDS):
                write(vm, 0, number + 1, "64k")  # otherwise the layer is there, and would be removed
                turns = [(copies, lambda: copy(disk, data / "copy")), (saves, lambda number=number: save(vm, f"saved{number}"))]
                for found, turn in turns if number % 2 else reversed(turns):
                    os.sync()
                    time.sleep(PAUSE)
                    found.append(turn())
                (data / "copy").unlink()
            ratios = [one / other for one, other in zip(saves, copies, strict=True)]
            print(
                f"save of {disk.stat().st_size >> 20} MiB: {statistics.median(saves):.2f} s, a copy of the file until"
                f" it is on disk: {statistics.median(copies):.2f} s, ratio {statistics.median(ratios):.2f} (promise"
                f" 1.3), {', '.join(f'{one:.2f}/{other:.2f}' for one, other in zip(saves, copies, strict=True))}"
            )
        finally:
            vm.close()


if __name__ == "__main__":
    main()
