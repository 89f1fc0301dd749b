"""Which accelerator runs guests on this node: tried with a boot sector (probe.py), and remembered until reboot or a new QEMU."""

from __future__ import annotations

import json
import os
from pathlib import PurePath

from pcocc_runtime import naming
from pcocc_runtime.documents.verdict import (
    KVM_DEVICE,
    MAX_VERDICT,
    VERDICT_FILE,
    Verdict,
    decode_verdict,
    encode_verdict,
    identify,
)
from pcocc_runtime.system import files, regular

SETUP_SECONDS = 8.0  # that a user waits for a verdict on a busy node
_CACHE = naming.STATE_DIR / VERDICT_FILE
_ABILITIES = naming.STATE_DIR / "qemu.json"


def find_accelerator(setting: str, qemu: PurePath, seconds: float = SETUP_SECONDS) -> Verdict:
    """Return the accelerator of this node; `auto` boots the probe, for at most `seconds`, and remembers what it saw.

    A verdict that these seconds did not suffice for is tried again at the next call.
    """
    if setting != "auto":
        return Verdict(setting, f"accel: {setting} in /etc/pcocc/pcocc.yaml")
    key = _identity(qemu)
    kept = decode_verdict(regular.read_start(_CACHE, MAX_VERDICT), key)
    if kept is not None and not kept.again:
        return kept
    from pcocc_runtime.node import probe  # which most set-ups do not need

    found = probe.try_kvm(qemu, KVM_DEVICE, seconds)
    files.replace_file(_CACHE, encode_verdict(found, key))
    return found


def read_abilities(qemu: PurePath, accel: str) -> bytes | None:
    """Return what documents/abilities.py encodes of this QEMU, asked once and kept as the verdict is; None when it does not answer."""
    key = [*_identity(qemu), accel]
    kept = regular.read_start(_ABILITIES, MAX_VERDICT)
    if kept is not None and kept.startswith(json.dumps({"key": key})[:-1].encode()):
        return kept
    from pcocc_runtime.node import abilities

    found = abilities.ask(qemu, accel, key)
    if found is not None:
        files.replace_file(_ABILITIES, found)
    return found


def _identity(qemu: PurePath) -> list[object]:
    try:
        status = os.stat(qemu)
    except OSError:
        return identify(str(qemu), None, None, False)
    return identify(str(qemu), status.st_mtime_ns, status.st_size, os.path.exists(KVM_DEVICE))
