"""The shell text by which a guest that goes on from a checkpoint takes the keys and ports of its new job.

It is run over a connection that the old key has opened, with root's rights where the user has them there (sudo). It
comes as the shell's input: nothing of it is in the guest's list of processes. POSIX sh. An old key is replaced in its
place in a file, by one that is as long: a guest whose disk is full does not lose the file. The file is written to disk
at once: after a reset of the guest, the new key alone would open it.
"""

from __future__ import annotations

import shlex

from pcocc_runtime.documents.boot import Keys
from pcocc_runtime.documents.reach import PORTFILE
from pcocc_runtime.guest.keys import PLACE
from pcocc_runtime.guest.script import KEYS_TAKEN_AS_USER

_HOST = "/etc/ssh/ssh_host_ed25519_key"
_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"

# $1 is the time; the braces have the shell read everything before it does anything
_BEGIN = """\
{ umask 077; r=$(id -u); s=1; d=$(($(date +%s) - $1))
if [ $r = 0 ] && { [ $d -gt 1 ] || [ $d -lt -1 ]; }; then date -s "@$1" >/dev/null 2>&1; fi
edit() { t=$(sed "s|$2|$3|g" "$1" && echo .) && printf %s "${t%.}" 1<>"$1" && sync "$1"; }
"""
# AuthorizedKeysFile of sshd_config(5) may name other files, with the words %u, %h and %%
_ACCOUNTS = """\
c='s/^[[:space:]]*[Aa]uthorized[Kk]eys[Ff]ile[[:space:]=]*//p'
p=$(sed -n "$c" /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*.conf 2>/dev/null)
set -f
while IFS=: read -r u _x _u _g _c h _s; do
  for f in .ssh/authorized_keys .ssh/authorized_keys2 $p; do
    case $f in *%u*) f=${f%%\\%u*}$u${f#*%u} ;; esac
    case $f in *%h*) f=${f%%\\%h*}$h${f#*%h} ;; /*) ;; *) f=$h/$f ;; esac
    [ -f "$f" ] || continue
    if grep -qsF "$o" "$f"; then edit "$f" "$o" "$n"; fi
    if [ "$u" = "$m" ] && grep -qsF "$n" "$f"; then s=0; fi
  done
done <<E
$(cat /etc/passwd; getent passwd "$m" 2>/dev/null)
E
set +f
"""
_FILES = f"""\
for f in $k/user $k/[0-9]* $k/$r; do [ ! -f $f ] || [ ! -w $f ] || printf '%s\\n' "$x" >$f; done
if [ $r != 0 ]; then [ $s != 0 ] || s={KEYS_TAKEN_AS_USER}; exit $s; fi
if [ -f $k/host ]; then
  printf '%s\\n' "$y" >$k/host
  if [ "$(readlink $e)" = $k/host ]; then (umask 022; echo "$z" >$e.pub); fi
  for w in "systemctl reload ssh" "systemctl reload sshd" "service ssh reload" "service sshd reload" \\
    "rc-service sshd reload"; do $w && break; done </dev/null >/dev/null 2>&1 ||
    kill -HUP "$(cat /run/sshd.pid)" 2>/dev/null
  [ ! -e $g ] || edit $g "$a" "$b"
fi
if [ "$q" ]; then (umask 022; mkdir -p ${{v%/*}}; echo "$q" >$v); else rm -f $v; fi
exit $s; }}
"""


def render_new_keys(former: Keys, keys: Keys, user: str, ports: str) -> str:
    """Return the text for a guest that knows the former keys, in which commands run as `user`.

    `ports` is the content of the file with the ports that lead to the VM, empty if it has none.
    """
    values = {
        "o": _blob(former.user_public), "n": _blob(keys.user_public), "m": user, "x": keys.user.rstrip("\n"),
        "a": _blob(former.host_public), "b": _blob(keys.host_public), "y": keys.host.rstrip("\n"), "k": PLACE,
        "z": keys.host_public, "e": _HOST, "g": _KNOWN_HOSTS, "v": PORTFILE, "q": ports,
    }  # fmt: skip
    words = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    return _BEGIN + words + _ACCOUNTS + _FILES


def _blob(public: str) -> str:
    """Return the key itself of a public key, without its type and its comment."""
    words = public.split()
    return words[1] if len(words) > 1 else public
