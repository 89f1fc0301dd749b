"""io_uring is taken where QEMU has it and the kernel gives a ring, and a QEMU that gets it starts."""

import os
import subprocess
import sys
from pathlib import Path

from pcocc_runtime.qemu.arguments import SANDBOX
from pcocc_runtime.qemu.asking import parse_answers, plan_asking_argv, render_questions
from pcocc_runtime.qemu.disks import Disk, plan_disks, plan_io
from pcocc_runtime.qemu.qmp import render_command
from pcocc_runtime.vm import async_io

ROOT = Path(__file__).resolve().parents[3]
QEMU = "/usr/bin/qemu-system-x86_64"


def test_a_qemu_without_it_gets_threads() -> None:
    assert async_io.find_ways(set()) == ()
    assert async_io.find_ways({"native"}) == ("native",)


def test_where_the_kernel_gives_no_ring_there_is_its_older_way() -> None:
    """A process without a descriptor to spare is given none."""
    few = "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))"
    look = "print(find_ways({'io_uring', 'native'}))"
    code = f"import resource; from pcocc_runtime.vm.async_io import find_ways; {few}; {look}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "('native',)\n"


def test_what_is_found_is_what_qemu_takes(tmp_path: Path) -> None:
    """In the sandbox that VMs have, with the disks that they have."""
    asked = subprocess.run(plan_asking_argv(QEMU, "tcg"), input=render_questions(QEMU), capture_output=True, check=True)
    abilities = parse_answers(asked.stdout.splitlines())
    assert abilities is not None
    before = len(os.listdir("/proc/self/fd"))
    ways = async_io.find_ways(abilities.has)
    assert len(os.listdir("/proc/self/fd")) == before
    (tmp_path / "seed").write_bytes(bytes(4096))
    disks = tuple(Disk(str(tmp_path / cache), "raw", cache) for cache in ("unsafe", "writeback", "none"))
    for disk in disks:
        Path(disk.path).write_bytes(bytes(1 << 20))
    argv = [QEMU, "-nodefaults", "-display", "none", "-machine", "q35", "-S", "-sandbox", SANDBOX, "-qmp", "stdio",
            *plan_disks("virtio", "q35", disks, str(tmp_path / "seed"), plan_io(1, ways, abilities.has))]  # fmt: skip
    write = {"command-line": 'qemu-io disk0 "write -P 7 0 4k"'}
    told = [render_command("qmp_capabilities"), render_command("human-monitor-command", write), render_command("quit")]
    done = subprocess.run(argv, input=b"".join(told), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(disks[0].path).read_bytes()[:4096] == bytes([7]) * 4096
