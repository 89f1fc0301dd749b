"""The shell texts by which a guest mounts and unmounts a directory, run by an ordinary user with pretended commands."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime.documents.cluster import Mount
from pcocc_runtime.guest import directories
from pcocc_runtime.guest.directories import (
    DONE_THERE,
    NO_ROOT,
    NO_VIRTIOFS,
    OCCUPIED,
    REFUSED,
    render_command_to_type,
    render_mounting,
    render_unmounting,
)

NOBODY = 65534
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]  # busybox would take its own mount(8)


class Guest:
    """A directory in the place of `/mnt`, `/proc` and `/bin` of a guest."""

    def __init__(self, base: Path) -> None:
        self.base = base
        for name in ("bin", "mnt", "proc"):
            (base / name).mkdir(mode=0o777)
            (base / name).chmod(0o777)
        self.proc("mounts", "proc /proc proc rw 0 0\n")
        self.proc("filesystems", "nodev\tproc\nnodev\tvirtiofs\n")
        self.command("id", "echo 0")
        self.command("sleep", "")
        for name in ("mount", "umount"):
            self.command(name, f'echo "{name} $*" >>{base}/mnt/told')

    def proc(self, name: str, text: str) -> None:
        (self.base / "proc" / name).write_text(text)

    def command(self, name: str, text: str) -> None:
        path = self.base / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, text: str, shell: str) -> tuple[int, str]:
        """Run a text; return its exit status and what it has written."""
        text = text.replace("/mnt", f"{self.base}/mnt").replace("/proc/", f"{self.base}/proc/")
        done = subprocess.run(
            [shell, "-s"], input=text, capture_output=True, text=True, user=NOBODY, group=NOBODY, extra_groups=[],
            env={"PATH": f"{self.base}/bin:/usr/bin:/bin"}, check=False
        )  # fmt: skip
        assert done.stderr == ""
        return done.returncode, done.stdout

    def told(self) -> list[str]:
        path = self.base / "mnt/told"
        return path.read_text().replace(str(self.base), "").splitlines() if path.exists() else []


@pytest.fixture
def guest() -> Iterator[Guest]:
    with tempfile.TemporaryDirectory() as base:
        Path(base).chmod(0o755)
        yield Guest(Path(base))


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


WORK = Mount("wo.rk-1", "/x", "virtiofs")


def test_a_directory_is_mounted_once_its_device_is_there(guest: Guest, shell: str) -> None:
    guest.command("mount", f'[ -e {guest.base}/mnt/second ] || {{ : >{guest.base}/mnt/second; exit 32; }}\n'
                           f'echo "mount $*" >>{guest.base}/mnt/told')  # fmt: skip
    assert guest.run(render_mounting(WORK), shell) == (DONE_THERE, "")
    assert guest.told() == ["mount -t virtiofs -o rw wo.rk-1 /mnt/wo.rk-1"]
    assert (guest.base / "mnt/wo.rk-1").stat().st_mode & 0o777 == 0o755
    assert guest.run(render_mounting(Mount("ro", "/x", "virtiofs", True)), shell)[0] == DONE_THERE
    assert guest.told()[1] == "mount -t virtiofs -o ro ro /mnt/ro"


def test_what_a_guest_cannot_mount(guest: Guest, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "_TRIES", 3)
    guest.command("mount", "echo mount: it does not work >&2; exit 32")
    assert guest.run(render_mounting(WORK), shell) == (REFUSED, "mount: it does not work\n")
    guest.proc("filesystems", "nodev\tvirtiofsx\n")
    assert guest.run(render_mounting(WORK), shell)[0] == NO_VIRTIOFS
    assert not (guest.base / "mnt/wo.rk-1").exists()
    (guest.base / "mnt/wo.rk-1").touch()
    status, said = guest.run(render_mounting(WORK), shell)
    assert status == REFUSED and "File exists" in said
    guest.proc("mounts", f"x {guest.base}/mnt/woxrk-1 ext4 rw 0 0\nx {guest.base}/mnt/wo.rk-1 ext4 rw 0 0\n")
    assert guest.run(render_mounting(WORK), shell)[0] == OCCUPIED
    guest.command("id", "echo 1000")
    assert guest.run(render_mounting(WORK), shell)[0] == NO_ROOT


def test_a_directory_is_unmounted_wherever_it_is(guest: Guest, shell: str) -> None:
    (guest.base / "mnt/wo.rk-1").mkdir()
    (guest.base / "mnt/wo.rk-1").chmod(0o777)
    assert guest.run(render_unmounting(WORK.tag), shell) == (DONE_THERE, "") and guest.told() == []
    guest.proc(
        "mounts", "wo.rk-1 /mnt/wo.rk-1 virtiofs rw 0 0\nwo.rk-1 /else\\040where virtiofs rw 0 0\nwo.rk-1 /old 9p rw 0 0\n"
    )
    assert guest.run(render_unmounting(WORK.tag), shell)[0] == DONE_THERE
    assert guest.told() == ["umount /mnt/wo.rk-1", "umount /else where"]
    guest.command("umount", "echo umount: target is busy >&2; exit 32")
    assert guest.run(render_unmounting(WORK.tag), shell) == (REFUSED, "umount: target is busy\n")
    guest.command("id", "echo 1000")
    assert guest.run(render_unmounting(WORK.tag), shell)[0] == NO_ROOT
    assert guest.run(render_unmounting("other"), shell)[0] == DONE_THERE


def test_what_a_user_types(guest: Guest, shell: str) -> None:
    assert guest.run(render_command_to_type(Mount("ro", "/x", "virtiofs", True)), shell)[0] == 0
    assert guest.told() == ["mount -t virtiofs -o ro ro /mnt/ro"]
