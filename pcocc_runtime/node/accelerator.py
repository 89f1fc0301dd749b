"""Which accelerator runs guests on this node: tried, not guessed, and remembered until reboot or a new QEMU.

That /dev/kvm opens, and even creates VMs, proves nothing: a nested hypervisor may emulate guest code at 0.25 MB/s or
stop on the first unusual instruction. So a boot sector of ours must reach its marker in time.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from dataclasses import asdict, dataclass
from pathlib import PurePath

from pcocc_runtime import naming
from pcocc_runtime.system import files, installed

PROBE_SECONDS = 4.0
_MARKER = b"PCOCC-PROBE-OK"
_CACHE = naming.STATE_DIR / "accel.json"
_PROBE_IMAGE = f"{installed.SHARE}/probe.img"
_KVM = "/dev/kvm"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """`kind` is kvm or tcg, `why` a clause for people."""

    kind: str
    why: str


def find_accelerator(setting: str, qemu: PurePath) -> Accelerator:
    """Return the accelerator of this node; `auto` boots the probe once and remembers what it saw."""
    if setting != "auto":
        return Accelerator(setting, f"accel: {setting} in /etc/pcocc/pcocc.yaml")
    key = _identity(qemu)
    kept = files.read_json(_CACHE)
    if isinstance(kept, dict) and kept.get("key") == key:
        return Accelerator(kept["kind"], kept["why"])
    found = _probe(qemu)
    files.replace_file(_CACHE, json.dumps({"key": key, **asdict(found)}).encode())
    return found


def _identity(qemu: PurePath) -> list[object]:
    try:
        status = os.stat(qemu)
    except OSError:
        return [str(qemu), None]
    return [str(qemu), status.st_mtime_ns, status.st_size, os.path.exists(_KVM)]


def _probe(qemu: PurePath) -> Accelerator:
    try:
        status = os.stat(_KVM)
    except OSError:
        return Accelerator("tcg", "the node has no /dev/kvm")
    if not stat.S_ISCHR(status.st_mode):
        return Accelerator("tcg", "/dev/kvm is no device")
    argv = [
        str(qemu), "-accel", "kvm", "-machine", "q35", "-m", "32", "-nodefaults", "-display", "none", "-no-reboot",
        "-drive", f"file={_PROBE_IMAGE},format=raw,if=none,id=probe,readonly=on", "-device", "virtio-blk-pci,drive=probe",
        "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=False,
            user="nobody",
            group=status.st_gid,
            extra_groups=[],
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
        )
    except subprocess.TimeoutExpired:
        return Accelerator("tcg", f"/dev/kvm did not run a small guest within {PROBE_SECONDS:g} s")
    except OSError as error:
        return Accelerator("tcg", f"the probe could not start: {error}")
    if _MARKER in done.stdout:
        return Accelerator("kvm", "/dev/kvm ran a small guest")
    return Accelerator("tcg", "/dev/kvm could not run a small guest")
