"""A VM of pcocc's and one that a careful expert types, side by side: HAND is the other one's command line.

VMs are started by the launcher, as in tests/qemu. Both run at the same time, and are asked in turn, each round beginning with
the other one. Their guests are of a kernel and busybox: the programs are this machine's own, on a mount.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from pcocc_runtime.documents.cluster import Drive, Group, Mount
from pcocc_runtime.documents.verdict import KVM_DEVICE
from tests.bench.figures import Figure, median
from tests.qemu.vm import APPEND, DATA, PROMPT, ROOT, Vm

CPUS, MEGABYTES, DISK = 2, 288, 256 << 20
# KVM where it is, pinned by hand as pcocc does; the disk as QEMU's manual advises for throughput
HAND = """
qemu-system-x86_64 -nodefaults -display none -machine q35 -accel {accel} -cpu {cpu} -smp {cpus} -m {memory}
 -kernel {guest}/vmlinux -initrd {guest}/{initrd} -append {append}
 -chardev socket,id=console,path={directory}/console,server=on,wait=off -serial chardev:console
 -object iothread,id=io -drive file={directory}/hand,format=raw,if=none,id=disk,cache=none,aio=io_uring,discard=unmap
 -device virtio-blk-pci,drive=disk,iothread=io,num-queues={cpus}
 -fsdev local,id=root,path=/,security_model=none,multidevs=remap,readonly=on -device virtio-9p-pci,fsdev=root,mount_tag=root
"""
IN_GUEST = "mkdir /h; mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 root /h; mount --bind /dev /h/dev; echo $?"


class Hand(Vm):
    """The expert's QEMU, as a VM that is asked like the other one."""

    def __init__(
        self, data: Path, guest: Path, initrd: str = "initrd", more: Sequence[str] = (), handed: Sequence[int] = ()
    ) -> None:
        """Start it with these words at the end, and these descriptors open."""
        self.job, self.log, self.console = 0, data / "log0", None
        accel, cpu = "tcg,thread=multi,tb-size=64", "max"
        if open_kvm() is not None:
            accel, cpu = "kvm", "host,migratable=off,kvm-hint-dedicated=on"
        words = [
            word.format(
                accel=accel, cpu=cpu, cpus=CPUS, memory=MEGABYTES, guest=guest, initrd=initrd, directory=data, append=APPEND
            )
            for word in HAND.split()
        ]
        self.place = data
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*words, *more], stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=handed
            )

    @property
    def directory(self) -> Path:
        """Return where its console is."""
        return self.place


@functools.cache
def open_kvm() -> int | None:
    """Open /dev/kvm, for as long as this process runs; None where no guest runs by it, whatever it says."""
    guest = ROOT / "build/guest"
    words = f"-accel kvm -cpu host -m 256 -nodefaults -display none -serial stdio -kernel {guest}/vmlinux -initrd {guest}/initrd"
    argv = ["timeout", "30", "qemu-system-x86_64", *words.split(), "-append", APPEND]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as qemu:
        assert qemu.stdout
        said = b""
        while PROMPT not in said and (more := os.read(qemu.stdout.fileno(), 65536)):
            said += more
        qemu.terminate()
    return os.open(KVM_DEVICE, os.O_RDWR) if PROMPT in said else None


def make_disk(path: Path) -> None:
    """Make a disk full of noise: a hole costs nothing to read."""
    noise = os.urandom(1 << 20)
    with path.open("wb") as stream:
        for _ in range(DISK >> 20):
            stream.write(noise)
        os.fsync(stream.fileno())
    os.chown(path, 1, 1)


def in_turns(rounds: int, ways: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Return what each way gives, round by round."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in sorted(ways, reverse=bool(number % 2)):
            found[name].append(ways[name]())
    return found


def compare(what: str, unit: str, found: dict[str, list[float]], asked: str) -> Figure:
    """Return a figure with the median of the rounds' ratios."""
    ratios = sorted(ours / theirs for ours, theirs in zip(found["pcocc"], found["hand"], strict=True))
    middle = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    return Figure(
        f"{what}, {len(ratios)} rounds", f"ratio {median(ratios):.3f} ({middle}; {median(found['pcocc']):.1f} {unit})",
        f"by hand {median(found['hand']):.1f} {unit}", asked,
    )  # fmt: skip


def boot_pair(data: Path, guest: Path, **changes: object) -> dict[str, Vm]:
    """Boot a VM of pcocc's and one by hand, each with this machine's files and a disk."""
    for name in ("hand", "drive"):
        make_disk(data / name)
    group = Group("t", 1, cpus=CPUS, persistent=(Drive(f"{DATA}/drive", "none", "no"),), mounts=(Mount("root", "/", "9p", True),),
                  **changes)  # type: ignore[arg-type]  # fmt: skip
    vms: dict[str, Vm] = {"pcocc": Vm(data, guest, group, kvm=open_kvm()), "hand": Hand(data, guest)}
    for vm in vms.values():
        vm.boot()
        assert vm.run(IN_GUEST, 60).splitlines()[-1] == "0", vm.said()
    return vms
