"""Builds and installs the project, and builds the guests' images."""

from __future__ import annotations

import subprocess

from boxlib.state import PREFIX, ROOT, BoxError


def ensure_installed() -> None:
    """Build and install the project under the prefix; nothing is touched when nothing changed."""
    if not (ROOT / "meson.build").exists():
        return
    build = ROOT / "build/box"
    if not (build / "build.ninja").exists():
        _run("meson", "setup", str(build), str(ROOT), f"--prefix={PREFIX}")
    _run("meson", "install", "-C", str(build), "--only-changed")


def _run(*argv: str) -> None:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise BoxError(f"{' '.join(argv)} failed:\n{done.stdout[-4000:]}")
