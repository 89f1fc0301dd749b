"""The shell text that runs a command in a guest: POSIX sh, nothing installed there, and nothing left behind.

Every process of a task carries the task's token in its environment; by it they are found and signalled. What the command
leaves running is ended after it. When the session is cut off before, the VM's keeper sees to that; where the task has no
keeper beside it, a guard in the guest does, which watches the sshd process of the session. Guard and outer shell do not
carry the token: /proc/PID/environ shows what a process was started with.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from pcocc_runtime.documents import wire
from pcocc_runtime.documents.reach import PORTFILE
from pcocc_runtime.documents.vm_state import TOKEN

_SIGNALS = "HUP INT QUIT USR1 USR2 ALRM TERM"
_PASSED = ("SLURM_", "PCOCC_")
_KEPT_BACK = ("SLURM_SPANK_", "SLURM_RLIMIT_", "SLURM_PCOCC_", wire.ENV_TAP_FDS, wire.ENV_PROBE_FD, wire.ENV_BOOT)
_HOST_ONLY = frozenset(
    [
        "SLURM_CONF",
        "SLURM_SRUN_COMM_HOST",
        "SLURM_SRUN_COMM_PORT",
        "SLURM_STEP_LAUNCHER_PORT",
        "SLURM_LAUNCH_NODE_IPADDR",
        "SLURM_WORKING_CLUSTER",
        "SLURM_PTY_PORT",
        "SLURM_PTY_WIN_COL",
        "SLURM_PTY_WIN_ROW",
        "SLURM_TASK_PID",
        "SLURM_CPU_BIND",
        "SLURM_CPU_BIND_LIST",
        "SLURM_CPU_BIND_TYPE",
        "SLURM_CPU_BIND_VERBOSE",
        "SLURM_UMASK",
        "SLURM_PRIO_PROCESS",
        "SLURM_TOPOLOGY_ADDR",
        "SLURM_TOPOLOGY_ADDR_PATTERN",
        "SLURM_OOM_KILL_STEP",
        wire.VAR_TEMPLATE,
        wire.VAR_IMAGE,
        wire.VAR_MOUNT,
        wire.VAR_USER_DATA,
        wire.VAR_USER_DATA_FORCE,
        wire.VAR_VM,
    ]
)


def select_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables a command in a guest gets: Slurm's and ours, without those that only mean something on hosts."""
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(_PASSED) and not name.startswith(_KEPT_BACK) and name not in _HOST_ONLY and name.isidentifier()
    }


def render_command(argv: Sequence[str], environ: Mapping[str, str], directory: str, umask: int, token: str, guarded: bool) -> str:
    """Return the text that a login shell in the guest runs: guard, directory, environment, command, exit status.

    The shell reads it from a here-document, so that `ps` in the guest shows the command and not all this.
    """
    end = f"_END_OF_{token}_"
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in sorted(environ.items()))
    return "\n".join(
        [
            f"exec /bin/sh /proc/self/fd/3 3<<'{end}'",
            "exec 3<&-",
            _render_kill(token),
            *([_CLEANER] if guarded else []),
            f"trap : {_SIGNALS}",
            f"umask {umask:04o}",
            f"cd {shlex.quote(directory)} 2>/dev/null || cd",
            f"export {TOKEN}={token} {exports}",
            _PORTS,
            f"{_LAST} _b=$_l",
            shlex.join(argv),
            "_s=$?",
            _REAP,
            "exit $_s",
            end,
        ]
    )


# A task on another node than its VM's does not know them; the VM does, from its seed: `JOB PORTS`. An image that was saved with
# that file has the number of another job in it. Shell built-ins alone: see below.
_PORTS = (
    f'[ "${{PCOCC_HOST_PORTS-x}}" ] || [ ! -r {PORTFILE} ] || '
    f'{{ read -r _j PCOCC_HOST_PORTS <{PORTFILE}; [ "$_j" = "$SLURM_JOB_ID" ] || PCOCC_HOST_PORTS=; }}'
)

# The last pid that was given (proc(5), loadavg): if since then only the command itself got one, it can have left nothing.
# A look at all processes takes 60 ms in an emulated guest. With the token its own grep would be found.
# A second look when the first finds nothing: the environment of a process that executes a program this moment cannot be read.
_LAST = "read -r _x _x _x _x _l </proc/loadavg;"
_REAP = (
    f'{_LAST} [ $((_l - _b)) -eq 0 ] || [ $((_l - _b)) -eq 1 ] || '
    f'{{ unset {TOKEN}; _f=; _k TERM; [ "$_f" ] || _k TERM; [ -z "$_f" ] || {{ sleep 0.1; _k KILL; }}; }}'
)


def _render_kill(*tokens: str) -> str:
    return f"_k() {{ {_kill_loop(tokens, '$1')} }}; "


# `$PPID` is the session's sshd, `$$` the outer shell, also inside the subshell
_CLEANER = (
    "( trap '' HUP INT TERM; exec </dev/null >/dev/null 2>&1; "
    "while [ -d /proc/$PPID ] && [ -d /proc/$$ ]; do sleep 1; done; _k TERM; sleep 1; _k KILL ) &"
)


def render_signal(token: str, signal_name: str) -> str:
    """Return the text that sends a signal (without SIG) to every process of a task."""
    return _kill_loop((token,), signal_name)


def render_sweep(tokens: Sequence[str]) -> str:
    """Return the text that ends every process of these tasks, in order and then by force."""
    return f'{_render_kill(*tokens)}_f=; _k TERM; [ -z "$_f" ] || {{ sleep 1; _k KILL; }}'


def _kill_loop(tokens: Sequence[str], signal: str) -> str:
    # one grep for all: a process each takes seconds in an emulated guest; busybox's -F stops at the first NUL
    marks = " ".join(f"-e '{TOKEN}={token.replace('.', '[.]')}'" for token in tokens)
    return (
        f"for p in $(grep -ls {marks} /proc/[0-9]*/environ 2>/dev/null); do "
        f'_f=1; p=${{p#/proc/}}; kill -s {signal} "${{p%/environ}}" 2>/dev/null; done; :;'
    )


def render_mount_look(mounts: Mapping[str, str]) -> str:
    """Return the text that names each tag of `mounts` (with its type) that is not mounted, a line each: `TAG` or, unknown to the kernel, `TAG !`."""
    words = " ".join(f"{tag}:{kind}" for tag, kind in mounts.items())
    return (
        "n='\n'; m=\"$n$(cut -d' ' -f1 /proc/mounts)$n\"; "
        f'for t in {words}; do case "$m" in *"$n${{t%:*}}$n"*) ;; *) '
        'if grep -qw "${t#*:}" /proc/filesystems; then echo "${t%:*}"; else echo "${t%:*} !"; fi ;; esac; done'
    )


def parse_mount_look(text: str, mounts: Mapping[str, str]) -> list[tuple[str, str, bool]]:
    """Return tag, type and whether the guest's kernel knows that type for each line of such a look, whatever a guest may say."""
    lines = [line.partition(" ") for line in text.splitlines()]
    return [(tag, mounts[tag], rest != "!") for tag, _space, rest in lines if tag in mounts]
