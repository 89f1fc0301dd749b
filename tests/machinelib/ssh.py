"""Commands in the machine, through connections that stay: a new one costs an emulated CPU a second or two."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence

from .place import NAME, USERS, MachineError, Place

Done = subprocess.CompletedProcess[str]


def read_port(place: Place) -> int:
    """Return the port of this host that leads to the machine's sshd."""
    try:
        return int((place.running / "port").read_text())
    except FileNotFoundError:
        raise MachineError("the machine is not up: run tests/node-machine up") from None


def render_argv(place: Place, user: str, *options: str) -> list[str]:
    """Return ssh's words up to the command, which is to be one word in a shell's language."""
    settings = [
        "LogLevel=ERROR", "BatchMode=yes", f"IdentityFile={place.disk}/id_ed25519", "IdentitiesOnly=yes", f"HostKeyAlias={NAME}",
        f"UserKnownHostsFile={place.disk}/known_hosts", "StrictHostKeyChecking=yes", "ConnectTimeout=300",
        f"ControlPath={place.sockets}/ssh-%r",
    ]  # fmt: skip
    words = [word for setting in settings for word in ("-o", setting)]
    return ["ssh", "-F", "none", "-p", str(read_port(place)), *words, *options, f"{user}@127.0.0.1"]


def run(place: Place, argv: Sequence[str], user: str = "root", data: bytes | None = None, timeout: float | None = None) -> Done:
    """Run a command to its end; `data` is its standard input."""
    words = [*render_argv(place, user), shlex.join(argv)]
    done = subprocess.run(words, input=data or b"", capture_output=True, timeout=timeout, check=False)
    return subprocess.CompletedProcess(
        argv, done.returncode, *(text.decode(errors="replace") for text in (done.stdout, done.stderr))
    )


def must_run(place: Place, argv: Sequence[str], user: str = "root", data: bytes | None = None) -> str:
    """The same for what must succeed; return its output."""
    done = run(place, argv, user, data)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise MachineError(f"in the machine, {shlex.join(argv)[:200]} ended with status {done.returncode}: {said}")
    return done.stdout


def open_masters(place: Place) -> None:
    """Open a connection for each user, which those that follow share."""
    for user in ("root", *USERS):
        words = render_argv(place, user, "-M", "-N", "-f")
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise MachineError(f"the machine does not let {user} in: {done.stderr.strip()}")


def close_masters(place: Place) -> None:
    """End these connections, and what runs in them."""
    for user in ("root", *USERS):
        if (place.sockets / f"ssh-{user}").exists():
            subprocess.run([*render_argv(place, user, "-O", "exit")], capture_output=True, check=False)
