"""What VMs use, from a made-up /proc, and how it is shown."""

import os
from dataclasses import replace
from pathlib import Path

from pcocc_runtime.observe.facts import Usage, decode_node_answers, encode_node_answer
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
        tmp_path, 10, ["qemu", "-name", "guest=job7-vm1,debug-threads=on", "-m", "size=304M", "-x"], 60
    )
    make_process(tmp_path, 11, ["qemu", "-name", "guest=job70-vm1,debug-threads=on"], 60)
    make_process(tmp_path, 12, ["qemu", "-name", "guest=job7-vm2,debug-threads=on"], 60)
    make_process(tmp_path, 13, ["sh"], 60)
    make_process(tmp_path, 14, ["grep", "-name", "guest=job7-vm3,"], 60)
    (tmp_path / "14/stat").unlink()
    assert read_usage(7, (0, 1, 3), str(tmp_path)) == {1: Usage(5000, 40500, 2 << 20, 304 << 20)}


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
