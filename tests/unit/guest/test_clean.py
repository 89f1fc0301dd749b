"""What a guest puts aside for a save: it is gone from the disk, and restored afterwards; run by a real shell in a tree of
its own.
"""

import os
import subprocess
from pathlib import Path

import pytest

from pcocc_runtime.documents.boot import KEY_COMMENT
from pcocc_runtime.guest import clean
from pcocc_runtime.vm import ssh_keys


def run(words: list[str], root: Path) -> int:
    done = subprocess.run(words, env={**os.environ, "R": str(root)}, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.stderr == "", done.stderr
    return done.returncode


def snapshot(root: Path) -> dict[str, object]:
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode, os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes(),
        )
        for path in root.rglob("*")
    }


PASSWD = "".join(f"x:x:1:1::{home}:/bin/sh\n" for home in ("/root", "/home/alice", "/home/bob", "/", "/nowhere", "/ccc/my home"))


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A guest's root directory."""
    ours, own = ssh_keys.make_keys(f"{KEY_COMMENT}12"), ssh_keys.make_keys("alice@laptop")
    files = {
        "etc/machine-id": "0123\n", "etc/ssh/ssh_host_ed25519_key": ours.host,
        "etc/ssh/ssh_host_ed25519_key.pub": ours.host_public,
        "etc/passwd": PASSWD, "ccc/my home/.ssh/authorized_keys": f"{ours.user_public}\n",
        "etc/ssh/sshd_config": "x",
        "home/bob/.ssh/id_ed25519": own.user,
        "home/alice/.ssh/authorized_keys": f"{own.user_public}\n{ours.user_public}\n",
        "var/lib/cloud/instances/i-1/vendor-data.txt": ours.user_public, "var/lib/cloud/data/x": "x",
        "var/lib/cloud/scripts/per-boot/own": "x",
        "var/log/cloud-init.log": ours.user_public, "home/alice/work": "work",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "var/lib/cloud/instance").symlink_to("/var/lib/cloud/instances/i-1")
    (tmp_path / "run/pcocc-keys").mkdir(parents=True)  # guest/keys.py
    return tmp_path


def test_what_identifies_a_machine_is_away_and_comes_back(guest: Path) -> None:
    before = snapshot(guest)
    assert run(clean.render_clean(), guest) == 0
    aside = guest / clean.CLEAN_ARCHIVE.lstrip("/")
    assert aside.stat().st_mode & 0o777 == 0o600
    left = {name: facts for name, facts in snapshot(guest).items() if not name.startswith("run/")}
    files = {name for name in left if (guest / name).is_file() or (guest / name).is_symlink()}
    assert files == {
        "etc/machine-id", "etc/passwd", "etc/ssh/sshd_config", "home/bob/.ssh/id_ed25519", "home/alice/.ssh/authorized_keys",
        "var/lib/cloud/scripts/per-boot/own", "home/alice/work", "ccc/my home/.ssh/authorized_keys",
    }  # fmt: skip
    assert (guest / "etc/machine-id").read_text() == ""
    assert (guest / "home/alice/.ssh/authorized_keys").read_text().endswith(" alice@laptop\n")
    assert run(clean.render_clean(), guest) == 0  # a second time, as after a save that was killed: what is aside stays
    assert run(clean.render_restore(), guest) == 0
    assert snapshot(guest) == before
    assert run(clean.render_restore(), guest) == 0 and snapshot(guest) == before


def test_what_is_linked_to_is_not_overwritten(guest: Path) -> None:
    (guest / "etc/machine-id").unlink()
    (guest / "etc/machine-id").symlink_to(guest / "home/alice/work")
    (guest / "var/lib/cloud/data/link").symlink_to(guest / "home/alice/work")
    assert run(clean.render_clean(), guest) == 0
    assert (guest / "home/alice/work").read_text() == "work"


def test_without_room_to_put_it_aside_nothing_is_touched(guest: Path) -> None:
    before = snapshot(guest)
    (guest / "run/pcocc-keys").rmdir()
    (guest / "run").rmdir()
    (guest / "run").write_text("")
    done = subprocess.run(
        clean.render_clean(), env={**os.environ, "R": str(guest)}, capture_output=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode != 0
    (guest / "run").unlink()
    (guest / "run/pcocc-keys").mkdir(parents=True)
    assert snapshot(guest) == before
