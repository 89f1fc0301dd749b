"""A small guest that shows whether /dev/kvm runs guests, by its progress and its CPU time, not by the clock.

That /dev/kvm opens, and even creates VMs, proves nothing: a nested hypervisor may emulate guest code at 0.25
MB/s or stop on the first unusual instruction.
"""

from __future__ import annotations

import os
import pwd
import selectors
import stat
import subprocess
import time
from pathlib import Path, PurePath
from typing import IO, NamedTuple

from pcocc_runtime.documents.verdict import Verdict
from pcocc_runtime.errors import one_line
from pcocc_runtime.system import drop, installed, run_as

STEP_SECONDS = 4.0  # of CPU time for one step: milliseconds where the CPU runs it
# not counted before the first step: on a node that is itself a VM, CPU time includes what its host gives to
# others
FIRMWARE_SECONDS = 16.0
_LOOK_SECONDS = 0.1  # between two looks at the CPU time
_MARKER = b"PCOCC-PROBE-OK"
_STOPPED = b"KVM internal error"  # QEMU goes on, but its guest stands still
_MOST = 1 << 16  # bytes of what QEMU writes
_VCPU = "CPU 0/KVM\n"  # what QEMU calls the thread, with debug-threads=on
_IMAGE = f"{installed.SHARE}/probe.img"


class Seen(NamedTuple):
    """What a probe had done when it was last looked at.

    `output` is its serial line, with a dot for each step, `said` QEMU's complaints. `cpu` is the CPU time in
    seconds that the present step has taken. `ended` says that QEMU has ended by itself.
    """

    output: bytes
    said: bytes
    cpu: float
    ended: bool

    @property
    def steps(self) -> int:
        """Return how many steps it has done."""
        return self.output.count(b".")

    @property
    def is_plain(self) -> bool:
        """Tell whether the verdict is certain, whatever comes next."""
        return self.ended or _MARKER in self.output or _STOPPED in self.said or self.cpu > STEP_SECONDS


def try_kvm(qemu: PurePath, device: str, seconds: float) -> Verdict:
    """Run the probe until it shows something, for at most `seconds`; return what that says of KVM on this node."""
    now = int(time.time())
    try:
        status = os.stat(device)
    except OSError:
        return Verdict("tcg", f"the node has no {device}", now)
    if not stat.S_ISCHR(status.st_mode):
        return Verdict("tcg", f"{device} is not a device", now)
    rights = drop.Rights(pwd.getpwnam("nobody").pw_uid, status.st_gid)
    try:
        with run_as.started_as(rights, _argv(qemu), {"PATH": "/usr/bin:/bin"}) as child:
            seen = _watch(child, time.monotonic() + seconds)
    except OSError as error:
        return Verdict("tcg", f"the probe could not start: {error}", now)
    return judge(seen, device, seconds)._replace(when=now)


def judge(seen: Seen, device: str, seconds: float) -> Verdict:
    """Return the verdict after `seconds`: one to be tried again when the probe had too little CPU time."""
    if _MARKER in seen.output:
        return Verdict("kvm", f"{device} ran a small guest")
    if seen.cpu > STEP_SECONDS:
        return Verdict(
            "tcg", f"{device} took {seen.cpu:.1f} s of CPU time for what takes milliseconds where KVM works"
        )
    if seen.ended or _STOPPED in seen.said:
        lines = [line for line in seen.said.decode(errors="replace").splitlines() if line.strip()]
        told = next(
            (line for line in lines if _STOPPED.decode() in line),
            lines[-1] if lines else "QEMU ended without a message",
        )
        return Verdict("tcg", f"{device} could not run a small guest: {one_line(told)[:200]}")
    if seen.steps:
        return Verdict(
            "kvm", f"{device} ran {seen.steps} steps of a small guest within {seconds:g} s on a busy node"
        )
    why = (
        f"the node was too busy to try {device} within {seconds:g} s; it is tried again when the next VMs"
        " start"
    )
    return Verdict("tcg", why, again=True)


def _argv(qemu: PurePath) -> list[str]:
    return [
        str(qemu), "-accel", "kvm", "-name", "probe,debug-threads=on", "-machine", "q35", "-m", "32",
        "-nodefaults", "-display", "none", "-no-reboot", "-drive",
        f"file={_IMAGE},format=raw,if=none,id=probe,readonly=on", "-device", "virtio-blk-pci,drive=probe",
        "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ]  # fmt: skip


def _watch(child: subprocess.Popen[bytes], end: float) -> Seen:
    """Look at a probe until it is plain what it shows, or until `end` of the monotonic clock."""
    assert child.stdout and child.stderr
    texts = {child.stdout: b"", child.stderr: b""}
    begun = FIRMWARE_SECONDS  # CPU time when the present step began
    seen = Seen(b"", b"", 0.0, False)
    with selectors.DefaultSelector() as waiting:
        for stream in texts:
            waiting.register(stream, selectors.EVENT_READ)
        while not seen.is_plain and time.monotonic() < end:
            _read(waiting, texts)
            used = _cpu_seconds(child.pid)
            output = texts[child.stdout]
            if output.count(b".") > seen.steps:
                begun = used
            seen = Seen(output, texts[child.stderr], max(used - begun, 0.0), not waiting.get_map())
    return seen


def _read(waiting: selectors.BaseSelector, texts: dict[IO[bytes], bytes]) -> None:
    """Take what is there to read, or comes within a moment; streams that have ended are no longer waited for."""
    for key, _events in waiting.select(_LOOK_SECONDS):
        data = os.read(key.fd, 4096)
        texts[key.fileobj] = (texts[key.fileobj] + data)[:_MOST]  # type: ignore[index]
        if not data:
            waiting.unregister(key.fileobj)


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of the guest's CPU, what it has run as a guest included (proc(5) of schedstat)."""
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        try:
            if (thread / "comm").read_text() == _VCPU:
                return int((thread / "schedstat").read_text().split()[0]) / 1e9
        except OSError:
            continue
    return 0.0
