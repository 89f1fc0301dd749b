"""The shell text that runs a command in a guest: POSIX sh, nothing installed there, and nothing left behind.

Every process of a task carries the task's token in its environment, by which they are found and signalled. What
the command leaves running is ended after it. If the session is cut off before, the VM's keeper ends it; where
no keeper runs beside the task, a guard in the guest does, which watches the sshd process of the session. The
guard and the outer shell do not carry the token: /proc/PID/environ shows the environment that a process was
started with.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from pcocc_runtime.documents import wire
from pcocc_runtime.documents.reach import PORTFILE
from pcocc_runtime.documents.vm_state import TOKEN
from pcocc_runtime.guest.environment import GuestEnvironment

# exit statuses of what new_keys.py renders: the guest has all of it, or all but what needs root's rights
KEYS_TAKEN, KEYS_TAKEN_AS_USER = 0, 3
_SIGNALS = "HUP INT QUIT USR1 USR2 ALRM TERM"
# srun's limits as a shell's `ulimit -S` takes them: its letters, and the bytes of its unit. bash calls
# processes u, others p
_LIMITS = {
    "CPU": ("t", 1), "FSIZE": ("f", 512), "DATA": ("d", 1024), "STACK": ("s", 1024), "CORE": ("c", 512),
    "RSS": ("m", 1024), "NPROC": ("up", 1), "NOFILE": ("n", 1), "MEMLOCK": ("l", 1024), "AS": ("v", 1024),
}  # fmt: skip


def render_script(
    argv: Sequence[str], environment: GuestEnvironment, directory: str, umask: int, token: str, guarded: bool,
    called: str = ""
) -> str:
    """Return the text that a login shell in the guest runs: guard, directory, environment, command, exit status.

    The shell reads it from a here-document, so that `ps` in the guest shows the command and not all this.
    `called` is what a complaint calls the command.
    """
    end = f"_END_OF_{token}_"
    return "\n".join(
        [
            f"exec /bin/sh /proc/self/fd/3 3<<'{end}'",
            "exec 3<&-",
            _render_kill(token),
            *([_CLEANER] if guarded else []),
            f"trap : {_SIGNALS}",
            f"umask {umask:04o}",
            f"cd {shlex.quote(directory)} 2>/dev/null || cd",
            f"_path=$PATH; export {TOKEN}={token}",
            *_render_environment(environment),
            _PORTS,
            f"_c={shlex.quote(argv[0])} _n={shlex.quote(called or argv[0])}",
            _LOOK,
            f"{_LAST} _b=$_l",
            f'$_w "$_r" {shlex.join(argv[1:])}',
            "_s=$?",
            _REAP,
            "exit $_s",
            end,
        ]
    )


def _render_environment(environment: GuestEnvironment) -> Iterator[str]:
    if environment.removed:
        yield f"unset {' '.join(sorted(set(environment.removed)))}"
    yield (
        "export"
        f" {' '.join(f'{name}={shlex.quote(value)}' for name, value in sorted(environment.settings.items()))}"
    )
    for name, value in sorted(environment.defaults.items()):
        yield f'[ "${{{name}+x}}" ] || export {name}={shlex.quote(value)}'
    if "TMPDIR" in environment.settings or "TMPDIR" in environment.defaults:
        # as slurmstepd does on a node
        yield '[ -w "$TMPDIR/" ] || mkdir -m 700 "$TMPDIR" 2>/dev/null || TMPDIR=/tmp'
    for name, value in sorted(environment.limits.items()):
        yield _render_limit(name, value)


def _render_limit(name: str, value: str) -> str:
    letters, unit = _LIMITS.get(name, ("", 1))
    number = value if value == "unlimited" else str(int(value) // unit)
    tries = [f"ulimit -S -{letter} {number} 2>/dev/null" for letter in letters]
    return " || ".join(
        [*tries, f'echo "pcocc: the limit {name} cannot be {value} in ${wire.ENV_VM_NAME}" >&2']
    )


# Says that there is no such command, or no interpreter for it: a shell would name this text and a line of it.
# Only built-ins are used: see below. `read -n` avoids reading a binary up to its first line end; dash does not
# have it. On a node a command is never a shell's own, and echo is not this shell's: so where there is a program
# of that name it is called by its path, and else another shell runs it. env runs what may fail in a way that the
# look does not find.
_LOOK = r"""_w= _r=$_c _p=$_c _e=
case $_c in */*);; *)
_p= _i=$IFS; IFS=:
for _d in $PATH; do [ -x "${_d:-.}/$_c" ] && [ ! -d "${_d:-.}/$_c" ] && { _p=${_d:-.}/$_c; break; }; done; IFS=$_i;;
esac
if [ -z "$_p" ]; then
case $_c in
if|then|elif|else|fi|for|in|while|until|do|done|case|esac|'{'|'}'|'!'|'[['|']]'|time|select|function|coproc) false;;
*) command -v "$_c" >/dev/null 2>&1;; esac &&
_w='/bin/sh -c "$@" sh' || { _e='not found' _s=127; }
elif [ ! -e "$_p" ]; then _e='not found' _s=127
elif [ -d "$_p" ]; then _e='is a directory' _s=126
elif [ ! -x "$_p" ]; then _e='permission denied' _s=126
elif [ -f "$_p" ]; then
_q=$_p _d=
while [ -z "$_e" ] && [ -f "$_q" ]; do
_l=; { IFS= read -r -n 2 _l; } 2>/dev/null <"$_q"
case $_l in ''|'#!') { IFS= read -r _l; } 2>/dev/null <"$_q";; esac
case $_l in '#!'*);; *) break;; esac
set -f; set -- ${_l#??}; set +f; _q=${1-/} _d=.$_d
if [ $# = 0 ]; then break
elif [ ! -e "$_q" ]; then case $_q in
*[[:cntrl:]]) _e="bad interpreter ${_q%?}, with a carriage return behind it: its lines end as in Windows" _s=127;;
*) _e="bad interpreter $_q: not found" _s=127;;
esac
elif [ -d "$_q" ] || [ ! -x "$_q" ]; then _e="bad interpreter $_q: permission denied" _s=126
elif [ $_d = ..... ]; then _e="bad interpreter $_q: too many of them in a row" _s=126
fi
done
case $_c in
-*|*=*) _d=-;;
'['|alias|bg|cd|command|echo|false|fc|fg|getopts|hash|jobs|kill) _r=$_p _d=-;;
printf|pwd|read|test|true|type|ulimit|umask|unalias|wait) _r=$_p _d=-;;
*/*);;
*) case $_p in /bin/*|/usr/bin/*|/sbin/*|/usr/sbin/*) _d=-;; esac;;
esac
[ "$_d" ] || [ ! -x /usr/bin/env ] || _w=/usr/bin/env
fi
[ -z "$_e" ] || { echo "$_n: $_e in $VM" >&2; exit $_s; }""".replace("$VM", f"${wire.ENV_VM_NAME}")

# A task that is not on its VM's node does not know the ports; the VM does, from its seed: `JOB PORTS`. In an image
# that was saved with that file, it has the number of another job. Only shell built-ins are used: see below.
_PORTS = (
    f'[ "${{PCOCC_HOST_PORTS-x}}" ] || [ ! -r {PORTFILE} ] || '
    f'{{ read -r _j PCOCC_HOST_PORTS <{PORTFILE}; [ "$_j" = "$SLURM_JOB_ID" ] || PCOCC_HOST_PORTS=; }}'
)

# The last pid that was given out (proc(5), loadavg): if only the command itself got one since, it has left no
# process, and the look at all of them is spared, which takes 60 ms in an emulated guest. The token is unset, or
# our own grep would be found. If the first look finds nothing, there is a second one: the environment of a
# process cannot be read while it executes a program.
_LAST = "read -r _x _x _x _x _l </proc/loadavg;"
_REAP = (
    f"{_LAST} [ $((_l - _b)) -eq 0 ] || [ $((_l - _b)) -eq 1 ] || "
    f'{{ unset {TOKEN} LD_PRELOAD LD_LIBRARY_PATH; PATH=$_path; _f=; _k TERM; [ "$_f" ] || _k TERM; [ -z'
    ' "$_f" ] || { sleep 0.1; _k KILL; }; }'
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
    # one grep for all: one for each process takes seconds in an emulated guest; busybox's -F stops at the first NUL
    marks = " ".join(f"-e '{TOKEN}={token.replace('.', '[.]')}'" for token in tokens)
    return (
        f"for p in $(grep -ls {marks} /proc/[0-9]*/environ 2>/dev/null); do "
        f'_f=1; p=${{p#/proc/}}; kill -s {signal} "${{p%/environ}}" 2>/dev/null; done; :;'
    )


def render_mount_look(mounts: Mapping[str, str]) -> str:
    """Return the text that prints each of the `mounts` not mounted: `TAG`, or `TAG !` if its type is unknown."""
    words = " ".join(f"{tag}:{kind}" for tag, kind in mounts.items())
    return (
        "n='\n'; m=\"$n$(cut -d' ' -f1 /proc/mounts)$n\"; "
        f'for t in {words}; do case "$m" in *"$n${{t%:*}}$n"*) ;; *) '
        'if grep -qw "${t#*:}" /proc/filesystems; then echo "${t%:*}"; else echo "${t%:*} !"; fi ;; esac;'
        " done"
    )


_AS_ROOT = 'if [ "$(id -u)" = 0 ] || ! sudo -n true </dev/null; then exec sh -s "$0"; else exec sudo -n sh -s "$0"; fi'


def render_taking(now: float) -> str:
    """Return the command that runs the text on its input, which new_keys.py has rendered, with root's rights if it can.

    `now` is the time in seconds of the epoch.
    """
    return render_as_root(str(int(now)))


def render_as_root(word: str = "sh") -> str:
    """Return the command that runs the text on its input with root's rights if it can; the text's $1 is `word`."""
    return f"exec sh -c {shlex.quote(_AS_ROOT)} {shlex.quote(word)}"


def parse_mount_look(text: str, mounts: Mapping[str, str]) -> list[tuple[str, str, bool]]:
    """Return (tag, type, whether the guest's kernel knows that type) for each valid line that such a look printed."""
    lines = [line.partition(" ") for line in text.splitlines()]
    return [(tag, mounts[tag], rest != "!") for tag, _space, rest in lines if tag in mounts]
