"""What the site's QEMU can do, asked by root's helper once for a QEMU, as nobody."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import PurePath

from pcocc_runtime.documents.abilities import MAX_ABILITIES, encode_abilities
from pcocc_runtime.documents.verdict import KVM_DEVICE
from pcocc_runtime.qemu.asking import parse_answers, plan_asking_argv, render_questions
from pcocc_runtime.system import drop, run_as

_SECONDS = 5.0  # it takes a quarter of one


def ask(qemu: PurePath, accel: str, key: list[object]) -> bytes | None:
    """Return the file's content for a key, None when this QEMU does not answer: then a VM's launcher asks it again."""
    try:
        group = os.stat(KVM_DEVICE).st_gid
    except OSError:
        group = pwd.getpwnam("nobody").pw_gid
    words = ["/bin/sh", "-c", 'asked=$1; shift; printf %s "$asked" | "$@"', "sh", render_questions().decode(), *plan_asking_argv(str(qemu), accel)]
    try:
        rights = drop.Rights(pwd.getpwnam("nobody").pw_uid, group)
        done = run_as.run_as(rights, words, {"PATH": "/usr/bin:/bin"}, seconds=_SECONDS, most=16 * MAX_ABILITIES)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = parse_answers(done.stdout.splitlines())
    return encode_abilities(found, key) if found else None
