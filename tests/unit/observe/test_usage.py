"""What VMs use, from a made-up /proc, and how it is shown."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pcocc_runtime import naming
from pcocc_runtime.documents.node_answer import Usage, decode_node_answers, encode_node_answer
from pcocc_runtime.observe import node_task
from pcocc_runtime.observe.ps_text import ListedVm, render_top
from pcocc_runtime.observe.usage import read_usage
from tests.unit.observe import netjob

TICK = os.sysconf("SC_CLK_TCK")


def make_process(proc: Path, pid: int, words: list[str], start: int) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "cmdline").write_bytes(b"\0".join(word.encode() for word in words) + b"\0")
    fields = ["S", *["0"] * 10, str(3 * TICK), str(2 * TICK), *["0"] * 6, str(start * TICK), "0"]
    (folder / "stat").write_text(f"{pid} (a ) b) {' '.join(fields)}\n")
    (folder / "status").write_text("Name:\tqemu\nVmRSS:\t  2048 kB\n")


def test_qemus_of_the_job_are_found(tmp_path: Path) -> None:
    (tmp_path / "uptime").write_text("100.5 1\n")
    (tmp_path / "self").mkdir()
    make_process(
        tmp_path, 10, ["qemu", "-name", "guest=job7-vm1,debug-threads=on", "-m", "size=304M", "-smp", "cpus=2,sockets=1"], 60
    )
    make_process(tmp_path, 11, ["qemu", "-name", "guest=job70-vm1,debug-threads=on"], 60)
    make_process(tmp_path, 12, ["qemu", "-name", "guest=job7-vm2,debug-threads=on"], 60)
    make_process(tmp_path, 13, ["sh"], 60)
    make_process(tmp_path, 14, ["grep", "-name", "guest=job7-vm3,"], 60)
    (tmp_path / "14/stat").unlink()
    assert read_usage(7, (0, 1, 3), str(tmp_path)) == {1: Usage(5000, 40500, 2 << 20, 304 << 20, 2)}


def test_a_vm_is_what_its_launcher_and_keeper_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "job_dir", lambda job: tmp_path)
    for rank, image in enumerate(("site:tiny@2", None, 7)):
        (tmp_path / f"vm{rank}").mkdir()
        tree = {"disks": [], "image": "/x/tiny", "origin": image, "scratch": "/tmp"}
        (tmp_path / f"vm{rank}/disks.json").write_text(json.dumps(tree))
        os.utime(tmp_path / f"vm{rank}/disks.json", (1000, 1000))
    (tmp_path / "vm1/state").write_text("")
    os.utime(tmp_path / "vm1/state", (2000, 2000))
    assert node_task.read_boot_images(7, range(4)) == {0: "site:tiny@2", 1: "/x/tiny"}
    assert node_task.read_since(7, range(4)) == {0: 1000, 1: 2000, 2: 1000}


def test_top_shows_cpu_since_the_last_look() -> None:
    vms = [
        ListedVm("7", "vm0", "n1", "up", "", (), Usage(30000, 3700000, 300 << 20, 256 << 20)),
        ListedVm("7", "vm1", "n1", "up", "", (), Usage(30000, 60000, 300 << 20)),
        ListedVm("7", "vm2", "n2", "unknown", "", ()),
    ]
    lines = render_top(
        vms, {("7", "vm0"): Usage(20000, 3690000, 0), ("7", "vm1"): Usage(99000, 99000, 0)}
    ).splitlines()
    assert [line.split() for line in lines] == [
        ["JOB", "VM", "NODE", "UP", "CPU%", "MEMORY", "GUEST", "STATE"],
        ["7", "vm0", "n1", "1:01:40", "100", "300M", "256M", "up"],
        ["7", "vm1", "n1", "1:00", "50", "300M", "-", "up"],
        ["7", "vm2", "n2", "-", "-", "-", "-", "unknown"],
    ]


def test_usage_comes_with_a_nodes_answer() -> None:
    used = {rank: Usage(1, 2, 3 << 40, 4) for rank in netjob.answer(1).node.here.ranks}
    sent = replace(netjob.answer(1), usage=used)
    assert used and decode_node_answers(encode_node_answer(1, sent)) == [sent]
