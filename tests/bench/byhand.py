"""The baseline of the boot: the very QEMU command line of a VM, started by hand with QEMU's own user-mode network."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.boot.box import STATE, Box

PORT = 22022


@dataclass(frozen=True)
class Kept:
    """What is needed to start a VM of a job again, by hand, when the job is over."""

    argv: list[str]
    directory: Path
    ssh: list[str]


def keep(box: Box, job: int, ssh: list[str]) -> Kept:
    """Copy the command line, seed and key of vm0 of a running job; `ssh` is the command its steps are reached by."""
    directory = STATE / "bench"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    source = box.root("n1", f"/run/pcocc/{job}")
    for path in (source / "vm0/seed.iso", source / "key"):
        shutil.copy(path, directory)
    argv = json.loads((source / "vm0/qemu.json").read_text())
    for path in (directory, *directory.iterdir()):
        shutil.chown(path, "alice", "alice")
    (directory / "key").chmod(0o600)
    words = [word.replace(f"/run/pcocc/{job}/key", str(directory / "key")) for word in ssh]
    target = next(number for number, word in enumerate(words) if word.startswith("alice@"))
    words[target : target + 1] = ["-p", str(PORT), "alice@127.0.0.1"]
    return Kept([_by_hand(word, job, directory) for word in argv], directory, words)


def _by_hand(word: str, job: int, directory: Path) -> str:
    """Remove what belongs to the job from one word of the command line."""
    if word.startswith("socket,id=keeper"):
        return f"socket,id=keeper,path={directory}/keeper,server=on,wait=off"
    if word.startswith("tap,id=net0"):
        return f"user,id=net0,hostfwd=tcp:127.0.0.1:{PORT}-:22"
    word = word.replace(f"/var/lib/pcocc/scratch/pcocc/{job}/vm0.qcow2", str(directory / "disk.qcow2"))
    word = word.replace(f"/var/lib/pcocc/scratch/pcocc/{job}/vm0.console.log", str(directory / "console.log"))
    return word.replace(f"/run/pcocc/{job}/vm0/", f"{directory}/")


# as the keeper and the attach client do it: look for sshd's banner, then one ssh; prints both times in seconds
_SCRIPT = """
import json, os, signal, socket, subprocess, sys, time
argv, ssh, port = json.loads(sys.argv[1])
begin = time.monotonic()
qemu = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
while True:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as connection:
            if connection.recv(4) == b"SSH-":
                break
    except OSError:
        pass
    time.sleep(0.05)
    assert qemu.poll() is None and time.monotonic() - begin < 120
banner = time.monotonic() - begin
while subprocess.run(ssh, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
    time.sleep(0.05)
    assert time.monotonic() - begin < 120
print(json.dumps([banner, time.monotonic() - begin]))
qemu.terminate()
qemu.wait()
"""


def boot(box: Box, kept: Kept) -> tuple[float, float]:
    """Boot it on n1 as alice; return the seconds until sshd's banner and until `ssh true` has ended with 0."""
    overlay, image = kept.directory / "disk.qcow2", STATE / "images/tiny.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", overlay], check=True)
    shutil.chown(overlay, "alice", "alice")
    argv = json.dumps([kept.argv, kept.ssh, PORT])
    text = box.out(["/usr/bin/python3", "-c", _SCRIPT, argv], node="n1")
    banner, done = json.loads(text)
    return banner, done
