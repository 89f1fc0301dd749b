"""OpenSSH's arguments to reach a VM of one's own job by the job's key, without the user's ssh_config(5)."""

from __future__ import annotations

from collections.abc import Sequence

_ALWAYS = (
    "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "GlobalKnownHostsFile=/dev/null",
    "BatchMode=yes", "IdentitiesOnly=yes", "ConnectTimeout=5", "PreferredAuthentications=publickey",
    "ServerAliveInterval=5", "ServerAliveCountMax=3", "ForwardX11=no", "ForwardAgent=no",
    "KexAlgorithms=curve25519-sha256,ecdh-sha2-nistp256", "CanonicalizeHostname=no", "CheckHostIP=no",
    "AddressFamily=inet",
)  # fmt: skip


def ssh_argv(
    user: str, address: str, key: str, log: str, control: str, options: Sequence[str], words: Sequence[str]
) -> list[str]:
    """Return an ssh's argument list; `control` is the socket of a shared connection.

    `options` are those of -o, `words` other flags, or the command.
    """
    every = [word for option in (*_ALWAYS, *options) for word in ("-o", option)]
    return [
        "ssh", "-F", "/dev/null", "-E", log, "-i", key, "-e", "none", "-S", control, *every,
        f"{user}@{address}", *words,
    ]
