"""The machine's process: starts it cold or from its saved state, saves it, ends it, and tells what is known of it while
it runs.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.boxlib.state import start_time
from tests.releaselib.suites import say

from . import hardware, ssh
from .monitor import Monitor
from .place import HERE, MachineError, Place, digest_files, read_record

BOOT_PATIENCE = 1800  # seconds; 41 on a quiet machine, 320 were seen on a busy one
_NVME_MEGABYTES = 64
_IN_FILE = [{"capability": name, "state": True} for name in ("mapped-ram", "events")]
_SETTLE = """
systemctl is-system-running --wait >/dev/null || { systemctl --failed --plain --no-legend; exit 1; }
udevadm settle
test -e /dev/kvm || { echo no KVM in it; exit 1; }
sync
"""
_LOGS = "journalctl --boot --no-pager; tail -n 100 /var/log/slurm/*.log"


def ensure_saved(place: Place) -> bool:
    """Boot a machine and save it, unless one of the same disk and hardware is saved; return whether it was booted."""
    wanted = digest_files([HERE / "machine.py"], place.disk.joinpath("made-of").read_text(), *hardware.render_argv())
    if read_record(place.saved) == wanted:
        return False
    say("booting the machine once, a minute on a quiet host")
    _remove_saved(place)
    try:
        _make_disk(place, f"{hardware.FILES}/disk/disk.ext4", "raw")
        _start(place)
        wait_up(place, BOOT_PATIENCE)
        done = ssh.run(place, ["sh", "-ec", _SETTLE])
        if done.returncode:
            log = place.path / "boot.log"
            log.write_text(ssh.run(place, ["sh", "-c", _LOGS]).stdout)
            raise MachineError(
                f"the machine has booted, and is not well: {done.stdout.strip() or done.stderr.strip()}; see {log}"
            )
        _save(place)
    finally:
        stop(place)
    (place.saved / "made-of").write_text(wanted)
    return True


def _remove_saved(place: Place) -> None:
    if place.saved.exists():
        shutil.rmtree(place.saved)


def _save(place: Place) -> None:
    place.saved.mkdir(mode=0o700)
    with Monitor(place.sockets / "qmp") as monitor:
        monitor.ask("stop")
        monitor.ask("migrate-set-capabilities", {"capabilities": _IN_FILE})
        monitor.ask("migrate", {"uri": f"file:{hardware.FILES}/saved/memory"})
        _wait_moved(monitor)
    _end(place, signal.SIGTERM)
    (place.running / "disk.qcow2").rename(place.saved / "disk.qcow2")


def _wait_moved(monitor: Monitor) -> None:
    """Wait until memory has been written, or read."""
    while (status := monitor.wait("MIGRATION")["data"]["status"]) != "completed":
        if status in ("failed", "cancelled"):
            raise MachineError(f"the machine's memory: {monitor.ask('query-migrate').get('error-desc', status)}")


def restore(place: Place) -> None:
    """Start what was saved on a fresh layer over its disk, and wait until it answers."""
    try:
        _restore(place)
    except BaseException:  # also an interrupt: no machine stays half restored
        stop(place)
        raise


def _restore(place: Place) -> None:
    _make_disk(place, f"{hardware.FILES}/saved/disk.qcow2", "qcow2")
    _start(place, "-incoming", "defer")
    with Monitor(place.sockets / "qmp") as monitor:
        monitor.ask("migrate-set-capabilities", {"capabilities": _IN_FILE})
        monitor.ask("migrate-incoming", {"uri": f"file:{hardware.FILES}/saved/memory"})
        _wait_moved(monitor)
        monitor.ask("cont")
    wait_up(place, BOOT_PATIENCE)


def _make_disk(place: Place, base: str, kind: str) -> None:
    """Make the disk of a machine that will start: a layer over `base`, which is a path as QEMU sees it."""
    if place.running.exists():
        shutil.rmtree(place.running)
    place.running.mkdir(mode=0o700)
    with (place.running / "nvme.raw").open("xb") as stream:
        stream.truncate(_NVME_MEGABYTES << 20)
    disk = f"{hardware.FILES}/running/disk.qcow2"
    made = subprocess.run(_inside(place, "qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", base, disk), check=False)
    if made.returncode:
        raise MachineError("the machine's disk cannot be made")


def _start(place: Place, *more: str, threads: int = 1) -> None:
    """Start QEMU, with further words, and learn the way to the machine's sshd."""
    if place.sockets.exists():
        shutil.rmtree(place.sockets)
    place.sockets.mkdir(mode=0o700)
    daemon = ["-daemonize", "-pidfile", f"{hardware.FILES}/running/qemu.pid", "-D", f"{hardware.FILES}/running/log"]
    argv = _inside(place, *hardware.render_argv(threads), *daemon, *more)
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise MachineError(
            f"the machine's QEMU does not start: {done.stderr.strip() or (place.running / 'log').read_text().strip()}"
        )
    pid = int((place.running / "qemu.pid").read_text())
    (place.running / "pid").write_text(f"{pid} {start_time(pid)}")
    with Monitor(place.sockets / "qmp") as monitor:
        forwards = monitor.ask("human-monitor-command", {"command-line": "info usernet"})
    (place.running / "port").write_text(str(parse_port(forwards)))


def parse_port(text: str) -> int:
    """Return the port of this host that leads to the machine's sshd, from the monitor's `info usernet`."""
    found = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", text)
    if found is None:
        raise MachineError(f"QEMU has no way to the machine's sshd: {text}")
    return int(found[1])


def _inside(place: Place, *command: str) -> list[str]:
    """Return a command in the machine's own root directory: its QEMU is younger than this host's."""
    root = place.root.root
    binds = {"/dev": root / "dev", str(place.path): root / hardware.FILES[1:], str(place.sockets): root / hardware.SOCKETS[1:]}
    place.sockets.mkdir(mode=0o700, exist_ok=True)
    for target in binds.values():
        target.mkdir(exist_ok=True)
    words = [word for source, target in binds.items() for word in (source, str(target))]
    script = 'root=$1; shift; while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done; shift; exec chroot "$root" "$@"'
    return ["unshare", "--mount", "--propagation=private", "sh", "-ec", script, "sh", str(root), *words, "--", *command]


def find_pid(place: Place) -> int | None:
    """Return the machine's process on this host; None when it does not run."""
    try:
        pid, started = (place.running / "pid").read_text().split()
    except FileNotFoundError:
        return None
    return int(pid) if start_time(int(pid)) == started else None


def wait_up(place: Place, seconds: float) -> None:
    """Wait until the machine's sshd answers, and give the machine the time of day."""
    end = time.monotonic() + seconds
    while not _answers(place):
        if find_pid(place) is None:
            raise MachineError(f"the machine's QEMU has ended: {(place.running / 'log').read_text().strip()}")
        if time.monotonic() > end:
            raise MachineError(f"the machine does not answer after {seconds:.0f} s; see {place.running}/console")
        time.sleep(0.2)  # it is booting: nothing tells when it answers
    ssh.open_masters(place)
    ssh.run(place, ["date", "--set", f"@{time.time():.3f}"])


def _answers(place: Place) -> bool:
    """Tell whether sshd greets: QEMU accepts the connection long before."""
    try:
        with socket.create_connection(("127.0.0.1", ssh.read_port(place)), timeout=10) as sock:
            return sock.recv(4) == b"SSH-"
    except OSError:
        return False


def power_cycle(place: Place, threads: int = 1) -> None:
    """Take the machine's power away and give it back: it boots from its disk as it is then, and has its NVMe controller.

    Its cores have so many threads each from then on.
    """
    stop(place)
    _start(place, *hardware.render_nvme(), threads=threads)
    wait_up(place, BOOT_PATIENCE)


def stop(place: Place) -> None:
    """End the machine, as by pulling its plug."""
    ssh.close_masters(place)
    _end(place, signal.SIGKILL)
    shutil.rmtree(place.sockets, ignore_errors=True)


def _end(place: Place, number: signal.Signals) -> None:
    """Send QEMU a signal that ends it, and wait until all of its threads have ended, and with them its locks on the disk."""
    pid = find_pid(place)
    if pid is None:
        return
    process = os.pidfd_open(pid)
    os.kill(pid, number)
    ended = select.select([process], [], [], 60)[0]
    os.close(process)
    if not ended:
        raise MachineError(f"the machine's QEMU, process {pid}, does not end")


def read_resident(pid: int) -> int:
    """Return the MiB of memory that a process has."""
    found = re.search(r"(?m)^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) >> 10 if found else 0
