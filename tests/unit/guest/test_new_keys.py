"""How a guest that goes on from a checkpoint takes the keys of its new job: the shell text, run by real shells in a tree."""

import subprocess
import time
from pathlib import Path

import pytest

from pcocc_runtime.documents.boot import KEY_COMMENT
from pcocc_runtime.guest.new_keys import render_new_keys
from pcocc_runtime.guest.script import KEYS_TAKEN, KEYS_TAKEN_AS_USER, render_taking
from pcocc_runtime.vm import ssh_keys

IN_A_GUEST = """
for one in etc home root run; do mount --bind "$1/$one" "/$one" || exit 9; done
export PATH="$1/bin:$PATH"; exec setpriv --reuid=$2 --regid=$2 --clear-groups "$3" -c "$4"
"""
OLD, NEW = (ssh_keys.make_keys(f"{KEY_COMMENT}{job}") for job in (7, 12345))
OTHER = "ssh-ed25519 AAAAC3Nza/other/+key alice@home"
KNOWN = f"vm*,*.d,10.* {OLD.host_public}\n"
ALICE = 2001


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A guest's tree as a first job has left it: alice and root know the old keys, and a file of sshd_config's does."""
    for name in ("etc/ssh/keys", "etc/pcocc", "home/alice/.ssh", "root/.ssh", "run/pcocc-keys", "bin"):
        (tmp_path / name).mkdir(parents=True)
    private = "run/pcocc-keys"
    for name, text in {
        "etc/passwd": f"root:x:0:0:root:/root:/bin/sh\nalice:x:{ALICE}:{ALICE}::/home/alice:/bin/sh\nx::\n",
        "etc/nsswitch.conf": "passwd: files\n", "etc/ssh/ssh_known_hosts": KNOWN, "etc/pcocc/host-ports": "7 22=n1:60222\n",
        "etc/ssh/sshd_config": "Port 22\n authorizedKeysFile .ssh/authorized_keys /etc/ssh/keys/%u %h/.ssh/more\n",
        "home/alice/.ssh/authorized_keys": f"{OTHER}\nfrom=\"10.*\" {OLD.user_public}\n", "home/alice/.ssh/more": OLD.user_public,
        "root/.ssh/authorized_keys": f"{OLD.user_public}\n{OTHER}\n\n", "etc/ssh/keys/root": f"{OLD.user_public}\n",
        f"{private}/user": OLD.user, f"{private}/{ALICE}": OLD.user, f"{private}/host": OLD.host,
        "bin/systemctl": '#!/bin/sh\n[ "$*" = "reload sshd" ] && echo "$*" >>/run/reloaded\n',
        "bin/date": '#!/bin/sh\n[ "$1" = -s ] && echo "$2" >/run/date || exec /bin/date "$@"\n',
        "bin/sudo": "#!/bin/sh\nexit 1\n", "bin/sync": '#!/bin/sh\necho "$@" >>/run/synced\n',
    }.items():  # fmt: skip
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o755 if name.startswith("bin") else 0o600 if ".ssh" in name or private in name else 0o644)
    (tmp_path / "etc/ssh/ssh_host_ed25519_key").symlink_to("/run/pcocc-keys/host")
    subprocess.run(["chown", "-R", f"{ALICE}:{ALICE}", tmp_path / "home/alice", tmp_path / private / str(ALICE)], check=True)
    (tmp_path / private).chmod(0o711)
    for one in (tmp_path, *tmp_path.parents[:2]):
        one.chmod(0o755)
    return tmp_path


def take(guest: Path, user: str = "alice", uid: int = 0, shell: str = "sh", now: float | None = None, ports: str = "") -> int:
    """Have the guest run the text; return its exit status."""
    command = render_taking(time.time() if now is None else now)
    argv = ["unshare", "--mount", "sh", "-c", IN_A_GUEST, "sh", str(guest), str(uid), shell, command]
    text = render_new_keys(OLD, NEW, user, ports)
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ""
    return done.returncode


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_all_that_knew_the_old_keys_has_the_new_ones(guest: Path, shell: str) -> None:
    before = {path: path.stat() for path in guest.rglob("*") if path.is_file()}
    assert take(guest, shell=shell, ports="12345 22=n2:60300") == KEYS_TAKEN
    old = [OLD.user_public.split()[1], OLD.host_public.split()[1], OLD.user, OLD.host]
    left = [path for path in guest.rglob("*") if path.is_file() and any(one in path.read_text() for one in old)]
    assert left == []
    new = NEW.user_public.split()[1]
    assert (guest / "home/alice/.ssh/authorized_keys").read_text() == f'{OTHER}\nfrom="10.*" ssh-ed25519 {new} pcocc-7\n'
    assert (guest / "home/alice/.ssh/more").read_text() == f"ssh-ed25519 {new} pcocc-7", "a file without a last line's end"
    assert (guest / "root/.ssh/authorized_keys").read_text() == f"ssh-ed25519 {new} pcocc-7\n{OTHER}\n\n"
    assert new in (guest / "etc/ssh/keys/root").read_text()
    for name, key in ((f"{ALICE}", NEW.user), ("user", NEW.user), ("host", NEW.host)):
        assert (guest / "run/pcocc-keys" / name).read_text() == key
    assert (guest / "etc/ssh/ssh_host_ed25519_key.pub").read_text() == f"{NEW.host_public}\n"
    assert NEW.host_public.split()[1] in (guest / "etc/ssh/ssh_known_hosts").read_text()
    assert (guest / "run/reloaded").read_text() == "reload sshd\n"
    assert (guest / "etc/pcocc/host-ports").read_text() == "12345 22=n2:60300\n"
    assert {*(guest / "run/synced").read_text().split()} == {
        "/home/alice/.ssh/authorized_keys", "/home/alice/.ssh/more", "/root/.ssh/authorized_keys",
        "/etc/ssh/keys/root", "/etc/ssh/ssh_known_hosts",
    }, "after a reset, the new key alone opens it"
    for path, was in before.items():
        now = path.stat()
        assert (now.st_mode, now.st_uid, now.st_ino) == (was.st_mode, was.st_uid, was.st_ino), path
    assert not (guest / "run/date").exists(), "the clock was right"
    assert take(guest) == KEYS_TAKEN and not (guest / "etc/pcocc/host-ports").exists(), "it may be run again"


def test_without_root_a_user_takes_what_is_the_users(guest: Path) -> None:
    assert take(guest, uid=ALICE) == KEYS_TAKEN_AS_USER
    assert NEW.user_public.split()[1] in (guest / "home/alice/.ssh/authorized_keys").read_text()
    assert (guest / f"run/pcocc-keys/{ALICE}").read_text() == NEW.user
    assert (guest / "etc/ssh/ssh_known_hosts").read_text() == KNOWN and not (guest / "run/reloaded").exists()
    assert OLD.user_public in (guest / "root/.ssh/authorized_keys").read_text()


@pytest.mark.parametrize("how", ["gone", "other"])
def test_who_lets_the_new_key_not_in_says_so(guest: Path, how: str) -> None:
    for path in (guest / "home/alice/.ssh/authorized_keys", guest / "home/alice/.ssh/more"):
        if how == "gone":
            path.unlink()
        else:
            path.write_text(f"{OTHER}\n")
    assert take(guest) == 1


@pytest.mark.parametrize("lag", [600, -600])
def test_a_wrong_clock_is_set(guest: Path, lag: int) -> None:
    now = int(time.time()) + lag
    assert take(guest, now=now) == KEYS_TAKEN
    assert (guest / "run/date").read_text() == f"@{now}\n"
