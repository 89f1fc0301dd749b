"""What this VM's QEMU can do: asked once for a job on a node, and kept in the job's directory."""

from __future__ import annotations

import os
import subprocess

from pcocc_runtime import naming
from pcocc_runtime.documents.abilities import (
    ABILITIES_FILE,
    MAX_ABILITIES,
    PLAIN,
    Abilities,
    decode_abilities,
    encode_abilities,
)
from pcocc_runtime.qemu.asking import parse_answers, plan_asking_argv, render_questions
from pcocc_runtime.system import files, regular

_SECONDS = 30.0


def find_abilities(job: int, qemu: str, accel: str) -> Abilities:
    """Return what `qemu` can do with an accelerator; of one that does not say, nothing that its releases differ in."""
    try:
        status = os.stat(qemu)
    except OSError:
        return PLAIN  # its launcher will say so
    key: list[object] = [qemu, status.st_mtime_ns, status.st_size, accel]
    place = naming.job_dir(job) / ABILITIES_FILE
    found = decode_abilities(regular.read_start(place, MAX_ABILITIES), key)
    if found is None and (found := _ask(qemu, accel)) is not None:
        files.replace_file(place, encode_abilities(found, key))
    return found or PLAIN


def _ask(qemu: str, accel: str) -> Abilities | None:
    argv, said = plan_asking_argv(qemu, accel), render_questions()
    try:
        done = subprocess.run(argv, input=said, capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_answers(done.stdout.splitlines())
