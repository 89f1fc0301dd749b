"""What this VM's QEMU can do: as root's helper has left it in the job's directory, or asked here where that is of another QEMU."""

from __future__ import annotations

import os
import subprocess

from pcocc_runtime import naming
from pcocc_runtime.documents.abilities import ABILITIES_FILE, MAX_ABILITIES, Abilities, decode_abilities, encode_abilities
from pcocc_runtime.documents.verdict import KVM_DEVICE, identify
from pcocc_runtime.system import files, regular

_OWN = "qemu-own.json"  # in the job's directory: of a template's qemu-bin
_SECONDS = 30.0


def find_abilities(job: int, qemu: str, accel: str) -> Abilities:
    """Return what `qemu` can do with an accelerator; of one that does not say, nothing that its releases differ in."""
    try:
        status = os.stat(qemu)
    except OSError:
        return Abilities()  # its launcher will say so
    key = [*identify(qemu, status.st_mtime_ns, status.st_size, os.path.exists(KVM_DEVICE)), accel]
    directory = naming.job_dir(job)
    for name in (ABILITIES_FILE, _OWN):
        found = decode_abilities(regular.read_start(directory / name, MAX_ABILITIES), key)
        if found is not None:
            return found
    found = _ask(qemu, accel)
    if found is None:
        return Abilities()
    files.replace_file(directory / _OWN, encode_abilities(found, key))
    return found


def _ask(qemu: str, accel: str) -> Abilities | None:
    from pcocc_runtime.qemu.asking import parse_answers, plan_asking_argv, render_questions

    argv = plan_asking_argv(qemu, accel)
    try:
        done = subprocess.run(argv, input=render_questions(), capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_answers(done.stdout.splitlines())
