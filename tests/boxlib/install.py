"""Builds and installs the project, and builds the guests' images."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from boxlib import second
from boxlib.state import PREFIX, ROOT, STATE, BoxError, lock

GUESTS = ("tiny", "debian")


def ensure_installed() -> None:
    """Build and install the project under the prefix; nothing is touched when nothing changed."""
    if not (ROOT / "meson.build").exists():
        return
    build = ROOT / "build/box"
    held = lock(ROOT / "build")  # two boxes have it in common
    if not (build / "build.ninja").exists():
        _run("meson", "setup", str(build), str(ROOT), f"--prefix={PREFIX}")
    _run("meson", "install", "-C", str(build), "--only-changed")
    os.close(held)


def _run(*argv: str) -> None:
    done = subprocess.run(second.leave(argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise BoxError(f"{' '.join(argv)} failed:\n{done.stdout[-4000:]}")


def ensure_image(name: str) -> Path:
    """Put a guest's image in its place, built by tests/guest/build-NAME.sh or taken from the cache; return its path."""
    script = ROOT / f"tests/guest/build-{name}.sh"
    if not script.exists():
        raise BoxError(f"{script} does not exist")
    cached = STATE / "cache" / f"{name}-{_digest_guest(script)[:16]}.qcow2"
    held = lock(cached.parent)  # two boxes have it in common
    if not cached.exists():
        fresh = cached.with_name(f".{cached.name}.new")
        _run(str(script), str(fresh))
        fresh.chmod(0o644)
        for old in cached.parent.glob(f"{name}-*.qcow2"):
            old.unlink()
        fresh.rename(cached)
    os.close(held)
    image = STATE / "images" / f"{name}.qcow2"
    marker = image.with_suffix(".from")
    if not (image.exists() and marker.exists() and marker.read_text() == cached.name):
        fresh = image.with_name(f".{image.name}.new")
        shutil.copyfile(cached, fresh)
        fresh.chmod(0o644)
        fresh.rename(image)
        marker.write_text(cached.name)
    return image


def _digest_guest(script: Path) -> str:
    """Return the hash of a build script and of the files beside it that are no other build script."""
    found = hashlib.sha256(script.read_bytes())
    for path in sorted(script.parent.rglob("*")):
        if path.is_file() and not path.match("build-*.sh") and "__pycache__" not in path.parts:
            found.update(f"{path.relative_to(script.parent)}\0".encode() + path.read_bytes())
    return found.hexdigest()
