"""The command line of virtiofsd: of the program in C that came with QEMU up to 7, or of its successor in Rust."""

from __future__ import annotations


def plan_virtiofsd_argv(program: str, source: str, fd: int, capabilities: str) -> list[str]:
    """Return the argv that serves a directory at a listening socket; `capabilities` is --print-capabilities' output.

    The one in Rust says "separate-options" (its main.rs); the one in C takes -o with commas, and escapes them.
    """
    if "separate-options" in capabilities:
        return [program, f"--fd={fd}", "--shared-dir", source, "--sandbox", "none", "--log-level", "error"]
    escaped = source.replace("\\", "\\\\").replace(",", "\\,")
    return [
        program, f"--fd={fd}", "-o", f"source={escaped},sandbox=chroot,log_level=err", "--rlimit-nofile=0",
    ]
