"""`tests/box run`: become a user on the login side or on a node, and execute a command there.

It imports little and ends in execve: the command is this very process, with its terminal, signals and exit status.
"""

from __future__ import annotations

import os
import pwd
import sys
from signal import SIG_DFL, SIGPIPE, SIGXFSZ, signal

TYPE_CHECKING = False  # as typing's, whose import would cost five milliseconds
if TYPE_CHECKING:
    from typing import NoReturn

STATE = "/var/lib/pcocc-box"
USAGE = "usage: tests/box run [--as USER] [--on NODE] [--cwd DIR] [--env K=V]... [--] COMMAND..."


def main(argv: list[str]) -> None:
    """Execute the command; never returns."""
    options, extra, command = _parse(argv[1:])
    name = options["on"]
    try:
        user = pwd.getpwnam(options["as"])
    except KeyError:
        _fail(f"there is no user {options['as']!r}")
    environ = {**_environment(user), **extra}
    namespaces = ["--mount", "--uts"] + ([] if name == "login" else ["--net", "--cgroup"])
    enter = ["nsenter", f"--target={_holder(name)}", *namespaces]
    become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"]
    for number in (SIGPIPE, SIGXFSZ):
        signal(number, SIG_DFL)
    argv = [*enter, *become, "env", f"--chdir={options['cwd'] or user.pw_dir}", *command]
    os.execve("/usr/bin/nsenter", argv, environ)


def _parse(words: list[str]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    options, extra = {"as": "alice", "on": "login", "cwd": ""}, {}
    while words and words[0].startswith("--"):
        word, _, value = words.pop(0).partition("=")
        if word == "--":
            break
        if word == "--help":
            print(USAGE)
            sys.exit(0)
        if word[2:] not in (*options, "env") or not (value or words):
            _fail(f"{word}: {USAGE}")
        value = value or words.pop(0)
        if word == "--env":
            key, _, text = value.partition("=")
            extra[key] = text
        else:
            options[word[2:]] = value
    if not words:
        _fail(USAGE)
    return options, extra, words


def _environment(user: pwd.struct_passwd) -> dict[str, str]:
    sbin = ("", "", "") if user.pw_uid else ("/usr/local/sbin:", "/usr/sbin:", "/sbin:")
    path = f"/opt/pcocc/bin:{sbin[0]}/usr/local/bin:{sbin[1]}/usr/bin:{sbin[2]}/bin"
    environ = {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name, "SHELL": user.pw_shell, "PATH": path}
    environ |= {key: os.environ[key] for key in ("TERM",) if key in os.environ}
    return {**environ, "LANG": "C.UTF-8"}


def _holder(name: str) -> str:
    try:
        with open(f"{STATE}/run/{os.path.basename(name)}", encoding="ascii") as file:
            pid, started = file.read().split()
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except (OSError, ValueError):
        _fail(f"{name} is not up: run tests/box up")
    if fields[19] != started or fields[0] in "ZX":
        _fail(f"{name} is not up: run tests/box up")
    return pid


def _fail(text: str) -> NoReturn:
    sys.stderr.write(f"box: error: {text}\n")
    sys.exit(125)
