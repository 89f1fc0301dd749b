"""How a guest takes the job's private keys: the shell text that it runs at each boot, run by real shells in a tree of its own."""

import os
import subprocess
from pathlib import Path

import pytest

from pcocc_runtime.guest import keys, seed
from tests.unit.guest.guests import ALICE, KEYS
from tests.waiting import wait_closely

# blkid finds the seed, which mount(8) shows as a directory: not every host's kernel has iso9660; /run may be a disk's
IN_A_GUEST = """
for one in etc home root var/lib; do mount --bind "$1/$one" "/$one" || exit 9; done
[ "$2" = disk ] && mount --bind "$1/run" /run || mount -t tmpfs none /run
export PATH="$1/bin:$PATH"; exec "$3" -c "$4" "$5" "$6" "$7" "$8"
"""
HOST = "etc/ssh/ssh_host_ed25519_key"
PASSWD = "root:x:0:0:root:/root:/bin/sh\n"
ALICES = "alice:x:2001:2002::/home/alice:/bin/sh\n"
USERS = ["root", "alice", "debian"]
SHELLS = ["sh", "bash"]


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A guest's root directory, with root alone, keys of the image's, and a seed."""
    for name in ("etc/ssh", "home/alice", "root/.ssh", "var/lib/cloud/instance/sem", "run", "bin"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/nsswitch.conf").write_text("passwd: files\n")
    for name in ("etc/ssh/ssh_host_rsa_key", HOST, "root/.ssh/id_ed25519"):
        (tmp_path / name).write_text("the image's\n")
    content = seed.render_seed(job=7, rank=0, vms=1, domain="d", login=ALICE, keys=KEYS, user_data=None)
    (tmp_path / "seed").mkdir()
    for name, text in content.items():
        (tmp_path / "seed" / name).write_text(text)
    mount = '[ "$1 $2" = "-t tmpfs" ] && exec /usr/bin/mount "$@"\n[ "$1 $2 $3 $4 $5" = "-t iso9660 -o ro SEED" ] && '
    mount += f'exec /usr/bin/mount --bind {tmp_path}/seed "$6"'
    for name, text in (("blkid", '[ "$*" = "-L cidata" ] && echo SEED'), ("mount", mount)):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def boot(guest: Path, shell: str = "sh", run: str = "", then: str = "") -> subprocess.Popen[str]:
    """Start what bootcmd runs, and a command after it, and wait for both."""
    text, *words = keys.render_take_keys(KEYS, USERS)
    argv = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        IN_A_GUEST,
        "sh",
        str(guest),
        run,
        shell,
        f"{text}\n{then}",
        *words,
    ]
    started = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return started


def end(started: subprocess.Popen[str]) -> str:
    """Let the command end; return what it printed."""
    out, err = started.communicate("\n", timeout=60)
    assert started.returncode == 0, err
    return out


SHOW = """kill $!; cd /run/pcocc-keys; stat -c '%a %u %N' $PWD/* /root/.ssh/id_ed25519
cat host; stat -f -c %T .; ls"""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("run", ["tmpfs", "disk"])
def test_keys_are_in_memory_and_links_on_the_disk(guest: Path, shell: str, run: str) -> None:
    said = end(boot(guest, shell, run, SHOW))
    assert (
        "600 0 '/run/pcocc-keys/0'\n" in said and "'/root/.ssh/id_ed25519' -> '/run/pcocc-keys/0'\n" in said
    )
    assert said.endswith(f"{KEYS.host}tmpfs\n0\nhost\nuser\n"), said
    assert (
        os.readlink(guest / HOST) == "/run/pcocc-keys/host"
        and (guest / f"{HOST}.pub").read_text() == f"{KEYS.host_public}\n"
    )
    assert not (guest / "etc/ssh/ssh_host_rsa_key").exists(), "of the image, as cloud-init would delete it"
    on_disk = [
        path
        for path in guest.rglob("*")
        if path.is_file() and not path.is_symlink() and path.parent.name != "seed"
    ]
    assert on_disk and not any(
        b"PRIVATE" in path.read_bytes() or KEYS.user in path.read_text() for path in on_disk
    )


def test_a_user_who_is_made_later_gets_the_key_then(guest: Path) -> None:
    started = boot(
        guest,
        then="echo ready; read word; cat /home/alice/.ssh/id_ed25519; stat -Lc '%a %u %g' /home/alice/.ssh/id_ed25519",
    )
    assert started.stdout is not None and started.stdout.readline() == "ready\n"
    (guest / "home/alice/.ssh").mkdir(mode=0o700)
    with (guest / "etc/passwd").open("a") as passwd:
        passwd.write(ALICES)
    wait_closely(lambda: (guest / "home/alice/.ssh/id_ed25519").is_symlink())
    wait_closely(lambda: (guest / "home/alice/.ssh/id_ed25519").lstat().st_uid == 2001)
    assert end(started) == f"{KEYS.user}600 2001 2002\n"


def test_a_boot_after_the_first_leaves_the_hosts_keys_alone(guest: Path) -> None:
    (guest / "var/lib/cloud/instance/sem/config_ssh").write_text("")
    end(boot(guest, then="kill $!"))
    assert (guest / HOST).read_text() == "the image's\n"


@pytest.mark.parametrize(
    ("config", "left"),
    [
        ("ssh_keys:\n  rsa_private: x\n", {"ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"}),
        ("ssh_keys:\n  ed25519_private: x\n", set()),
        ("ssh_deletekeys: false\n", {"ssh_host_rsa_key", "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"}),
    ],
)
def test_what_the_users_cloud_config_says_of_host_keys_goes_before(
    guest: Path, config: str, left: set[str]
) -> None:
    (guest / "var/lib/cloud/instance/cloud-config.txt").write_text(f"#cloud-config\n{config}")
    end(boot(guest, then="kill $!"))
    assert {path.name for path in (guest / "etc/ssh").iterdir()} == left


def test_a_guest_that_does_not_find_its_seed_makes_host_keys_itself(guest: Path) -> None:
    (guest / "bin/blkid").unlink()
    started = boot(guest)
    started.communicate("", timeout=60)
    assert started.returncode == 1
    assert (guest / HOST).read_text() == "the image's\n", (
        "cloud-init's to replace: its own cannot be linked to"
    )


def test_no_text_that_cloud_init_keeps_has_a_private_key() -> None:
    found = seed.render_seed(
        job=7, rank=0, vms=1, domain="d", login=ALICE, keys=KEYS, user_data=None, command_user="debian"
    )
    private = {name for name, text in found.items() if "BEGIN" in text}
    assert private == {"pcocc-user-key", "pcocc-host-key"}
