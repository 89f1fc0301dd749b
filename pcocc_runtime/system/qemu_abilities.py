"""Asks a QEMU what it can do: the planner, as user nobody, for a node, and a launcher where that is not enough."""

from __future__ import annotations

import os
import subprocess

from pcocc_runtime.documents.abilities import Abilities
from pcocc_runtime.qemu.asking import QUESTIONS, parse_answers, plan_asking_argv, render_questions

_SECONDS = 20.0  # it takes a quarter of a second


def identify(qemu: str, accel: str) -> list[object] | None:
    """Return what tells one QEMU from another, to be stored with its answers; None if there is no such program."""
    try:
        status = os.stat(qemu)
    except OSError:
        return None
    return [qemu, status.st_mtime_ns, status.st_size, accel, QUESTIONS]


def ask_qemu(qemu: str, accel: str, kvm_fd: int | None = None) -> Abilities | None:
    """Return what `qemu` can do with an accelerator, None when it does not say; `kvm_fd`: an open /dev/kvm."""
    argv = plan_asking_argv(qemu, accel, kvm_fd)
    handed = () if kvm_fd is None else (kvm_fd,)
    try:
        done = subprocess.run(
            argv, input=render_questions(qemu), capture_output=True, timeout=_SECONDS, check=False, pass_fds=handed
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_answers(done.stdout.splitlines())
