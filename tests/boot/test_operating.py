"""Operating VMs from the login node: their console, log, display, buttons, monitor, agent and memory."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.box import HOME, SHARED_NAME, Box
from tests.boot.cluster import Cluster, make_cluster
from tests.waiting import wait_for

TEMPLATE = "mine: {inherits: tiny, on-power-off: keep, remote-display: vnc}\n"


@pytest.fixture(scope="module")
def kept(box: Box) -> Iterator[Cluster]:
    """Two VMs that have a display, and that are kept when they power off."""
    home = HOME / "boottest-kept"
    (home / ".pcocc").mkdir(parents=True, exist_ok=True)
    (home / ".pcocc/templates.yaml").write_text(TEMPLATE)
    with make_cluster(
        box, "--pcocc-template=mine:2", "-N2", name=SHARED_NAME, env={"PCOCC_USER_CONF_DIR": f"{home}/.pcocc"}
    ) as found:
        yield found
    shutil.rmtree(home)


def test_a_log_is_read_and_followed(box: Box, cluster: Cluster) -> None:
    job = str(cluster.job)
    assert "READY vm1" in box.out(["pcocc", "log", f"vm1.{job}"])
    lines = box.out(["pcocc", "log", "-j", job, "-n", "1000", "vm[0-1]"]).splitlines()
    assert any(line.startswith("vm0: READY vm0") for line in lines) and any(
        line.startswith("vm1: READY vm1") for line in lines
    )
    assert "READY vm1" in box.out(["pcocc", "log", f"vm1.{job}"], user="root"), "root sees anybody's"
    done = box.run(["pcocc", "log", "-f", f"vm1.{job}"], user="root")
    assert done.returncode == 1 and "only its owner can use its VMs" in done.stderr
    follower = box.start(["pcocc", "log", "-j", job, "-f", "-n", "5", "vm1"])
    cluster.vm(["sudo", "sh", "-c", "echo one more >/dev/console"], vms="vm1")
    _read(follower, "one more")
    follower.terminate()
    box.finish(follower)


def test_a_console_on_a_terminal(box: Box, cluster: Cluster) -> None:
    console = box.start(
        ["script", "-qfec", f"pcocc console vm1.{cluster.job}", "/dev/null"], env={"TERM": "dumb"}
    )
    assert console.stdout and console.stdin
    seen = _read(console, "Ctrl-] leaves it")
    console.stdin.write("\recho con-$((40+2))\r")
    console.stdin.flush()
    seen += _read(console, "con-42")
    watcher = box.run(["pcocc", "console", "-j", str(cluster.job), "vm1"])
    assert "another console of vm1 has the keyboard" in watcher.stderr and "con-42" in watcher.stdout
    console.stdin.write("\x1d")
    console.stdin.flush()
    _read(console, "console of vm1: left")
    assert box.finish(console, 30).returncode == 0, seen


def _read(process: object, text: str) -> str:
    seen = ""
    while text not in seen:
        letter = process.stdout.read(1)  # type: ignore[attr-defined]
        assert letter, seen
        seen += letter
    return seen


def test_monitor_agent_and_memory(box: Box, cluster: Cluster) -> None:
    job, target = str(cluster.job), HOME / "boottest-dump"
    assert [
        json.loads(line)["status"]
        for line in box.out(["pcocc", "qmp", "-j", job, "vm[0-3]", "query-status"]).splitlines()
    ] == ["running"] * 4
    assert "VM status: running" in box.out(["pcocc", "monitor", f"vm2.{job}", "info", "status"])
    assert json.loads(box.out(["pcocc", "agent", "-j", job, "vm3", "ping"])) == {}
    done = box.run(["pcocc", "agent", "-j", job, "vm3", "nonsense"])
    assert done.returncode == 1 and "the guest's agent refuses" in done.stderr
    try:
        assert f"vm3: {target}" in box.out(["pcocc", "dump", "-j", job, "vm3", str(target)])
        assert target.read_bytes()[:4] == b"\x7fELF"
    finally:
        target.unlink(missing_ok=True)
    assert cluster.vm("hostname", vms="vm3") == "vm3"
    done = box.run(["pcocc", "screenshot", "-j", job, "vm0", "-"])
    assert done.returncode == 1 and "vm0 has no display" in done.stderr


def test_a_picture_of_a_display(box: Box, kept: Cluster, home: Path) -> None:
    box.run(["pcocc", "screenshot", "-j", str(kept.job), "vm1"], cwd=str(home), status=0)
    assert (home / f"vm1.{kept.job}.png").read_bytes().startswith(b"\x89PNG")


def test_a_reset_guest_is_there_again(box: Box, kept: Cluster) -> None:
    job = str(kept.job)
    kept.vm(["sudo", "sh", "-c", "echo before >/run/mark"], vms="vm0")
    assert box.out(["pcocc", "reset", "-j", job, "vm0"]) == "vm0: reset"
    wait_for(
        lambda: kept.srun(["--pcocc-vm=vm0", "test", "!", "-e", "/run/mark"]).returncode == 0,
        "the guest after its reset",
        90,
    )


def test_power_goes_off_and_on(box: Box, kept: Cluster) -> None:
    job = str(kept.job)
    kept.vm(["sudo", "sh", "-c", "echo kept >/mark; sync"], vms="vm1")
    qemu = kept.qemus()["vm1"]
    assert box.out(["pcocc", "power", "off", "-j", job, "vm1"]).startswith("vm1: off after ")
    wait_for(lambda: "off" in box.out(["pcocc", "ps", "-l", "-j", job]), "the state", 10)
    done = kept.srun("--pcocc-vm=vm1 true")
    assert done.returncode == 1 and "vm1 on n2 is powered off" in done.stderr, done.stderr
    assert kept.vm("hostname", vms="vm0") == "vm0"
    assert box.out(["pcocc", "power", "on", "-j", job, "vm[0-1]"]).splitlines() in (
        ["vm0: is on", "vm1: on"],
        ["vm1: on", "vm0: is on"],
    )
    assert kept.vm("hostname; cat /mark", vms="vm1", timeout=120) == "vm1\nkept"
    assert kept.qemus()["vm1"].pid == qemu.pid
    assert box.out(["pcocc", "power", "cycle", "-j", job, "vm1"]).startswith("vm1: on after ")
    assert kept.vm("hostname", vms="vm1", timeout=120) == "vm1"


def test_a_drive_moves_between_running_vms(box: Box, kept: Cluster) -> None:
    job, drive = str(kept.job), HOME / "boottest-drive"
    box.out(["truncate", "-s", "4M", str(drive)])
    find = "for one in /sys/block/vd*; do [ \"$(cat $one/serial)\" != disk1 ] || echo /dev/${one##*/}; done"
    try:
        assert box.out(["pcocc", "disk", "attach", "-j", job, "vm0", str(drive)]) == f"vm0: disk1 is {drive}"
        wait_for(lambda: kept.vm(find) != "", "the guest's new disk", 30)
        kept.vm(["sudo", "sh", "-c", f"printf moved | dd of=$({find}) conv=fsync"])
        done = box.run(["pcocc", "disk", "attach", "-j", job, "vm1", str(drive)])
        assert done.returncode == 1 and "is in use by a VM of this job" in done.stderr, done.stderr
        done = box.run(["pcocc", "checkpoint", "-j", job, str(HOME / "boottest-none")])
        assert done.returncode == 1 and "cannot be stored with disk1" in done.stderr, done.stderr
        assert box.out(["pcocc", "disk", "detach", "-j", job, "vm0", "disk1"]) == "vm0: disk1 is detached"
        assert box.out(["pcocc", "disk", "attach", "-j", job, "vm1", str(drive)]) == f"vm1: disk1 is {drive}"
        wait_for(lambda: kept.vm(find, vms="vm1") != "", "the guest's new disk", 30)
        assert kept.vm(["sudo", "sh", "-c", f"head -c 5 $({find})"], vms="vm1") == "moved"
        assert str(drive) in box.out(["pcocc", "disk", "list", "-j", job, "vm[0-1]"])
        assert box.out(["pcocc", "disk", "detach", "-j", job, "vm1", str(drive)]) == "vm1: disk1 is detached"
    finally:
        drive.unlink()


def test_a_vm_that_has_ended_says_so(box: Box) -> None:
    with make_cluster(box, "--pcocc-template=tiny:2", "-N1") as found:
        job = str(found.job)
        done = box.run(["pcocc", "power", "on", "-j", job, "vm1"])
        assert done.returncode == 1 and "vm1 ends when it is powered off" in done.stderr
        began = time.monotonic()
        assert box.out(["pcocc", "power", "off", "--now", "-j", job, "vm1"]).startswith("vm1: off after ")
        assert time.monotonic() - began < 30
        wait_for(lambda: "vm1" not in found.qemus(), "the end of vm1", 20)
        assert "vm1" in box.out(["pcocc", "log", "-j", job, "vm1"])  # its last words can still be read
        for words in ("reset", "console", "monitor"):
            done = box.run(
                ["pcocc", words, "-j", job, "vm1", *(["info", "status"] if words == "monitor" else [])]
            )
            assert (
                done.returncode == 1 and "vm1 has ended: it was stopped through its monitor" in done.stderr
            ), (words, done.stderr)
        done = box.run(["pcocc", "ssh", "-j", job, "vm1", "true"])
        assert done.returncode == 255 and "vm1 on n1 has ended" in done.stderr
        assert box.out(["pcocc", "ssh", "-j", job, "vm0", "hostname"]) == "vm0"
