"""Which accelerator this node's guests have: tried with a boot sector (probe.py), kept until reboot or a new QEMU."""

from __future__ import annotations

import os
from pathlib import PurePath

from pcocc_runtime import naming
from pcocc_runtime.documents import verdict
from pcocc_runtime.documents.verdict import KVM_DEVICE, Verdict
from pcocc_runtime.system import files, regular

SETUP_SECONDS = 30.0  # that a user waits for a verdict on a busy node: less than a job that is emulated costs him
_CACHE = naming.STATE_DIR / verdict.VERDICT_FILE


def find_accelerator(setting: str, qemu: PurePath, seconds: float = SETUP_SECONDS) -> Verdict:
    """Return the accelerator of this node; `auto` boots the probe, for at most `seconds`, and remembers what it saw.

    When the time did not suffice for a verdict, the next call tries again.
    """
    if setting != "auto":
        return Verdict(setting, f"accel: {setting} in /etc/pcocc/pcocc.yaml")
    key = _identity(qemu)
    kept = verdict.decode_verdict(regular.read_start(_CACHE, verdict.MAX_VERDICT), key)
    if kept is not None and not kept.again:
        return kept
    from pcocc_runtime.node import probe  # which most set-ups do not need

    found = probe.try_kvm(qemu, KVM_DEVICE, seconds)
    files.replace_file(_CACHE, verdict.encode_verdict(found, key))
    return found


def _identity(qemu: PurePath) -> list[object]:
    try:
        status = os.stat(qemu)
    except OSError:
        return [str(qemu), None]
    return [str(qemu), status.st_mtime_ns, status.st_size, os.path.exists(KVM_DEVICE)]
