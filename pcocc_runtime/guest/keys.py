"""The shell text by which a guest takes the job's private keys from its seed into memory, never to its disk.

They are files of their own beside user-data and vendor-data, which cloud-init keeps on the disk in several
copies. POSIX sh, run by cloud-init's bootcmd at each boot, before sshd starts; users whom cloud-init makes
after that are waited for in the background, for five minutes.
"""

from __future__ import annotations

from collections.abc import Sequence

from pcocc_runtime.documents.boot import Keys

PLACE = "/run/pcocc-keys"
_USER_KEY, _HOST_KEY = "pcocc-user-key", "pcocc-host-key"
_HOST = "/etc/ssh/ssh_host_ed25519_key"
_STATE = "/var/lib/cloud/instance"

_TAKE = f"""\
umask 077; k={PLACE}; mkdir -p $k/seed
case "$(stat -f -c %T /run 2>/dev/null)" in tmpfs|ramfs) ;;
*) mount -t tmpfs pcocc-keys $k; mkdir -p $k/seed ;; esac; chmod 711 $k
for d in /dev/disk/by-label/cidata "$(blkid -L cidata)" "$(findfs LABEL=cidata)" /dev/sr0; do
  mount -t iso9660 -o ro "$d" $k/seed && break
done 2>/dev/null
cp $k/seed/{_USER_KEY} $k/user; cp $k/seed/{_HOST_KEY} $k/host; umount $k/seed; rmdir $k/seed
[ -e $k/user ] || exit 1
"""
# What cloud-init's ssh module would do at an instance's first boot, for it would delete the link, too.
# What the user's own cloud-config says of such keys, which cloud-init has written down by then, goes before.
_TAKE_HOST = f"""\
chcon -t sshd_key_t $k/host 2>/dev/null
if [ -d {_HOST.rpartition("/")[0]} ] && [ ! -e {_STATE}/sem/config_ssh ]; then
  grep -qs '^ssh_deletekeys: false' {_STATE}/cloud-config.txt || rm -f /etc/ssh/ssh_host_*key*
  grep -qs '^ *ed25519_private:' {_STATE}/cloud-config.txt ||
    {{ ln -sf $k/host {_HOST}; (umask 022; echo "$0" >{_HOST}.pub); }}
fi
"""
# One look at all users who are still to be served; it starts no process for one who is not there yet.
_LOOK = 'c=$#; while [ $c -gt 0 ]; do c=$((c-1)); seek "$1" && place || set -- "$@" "$1"; shift; done'
_TAKE_USERS = f"""\
seek() {{ while IFS=: read -r a _b u g _c h _s; do [ "$a" != "$1" ] || return 0; done </etc/passwd
  [ $n -gt 20 ] && h=$(getent passwd "$1") && IFS=: read -r a _b u g _c h _s <<E
$h
E
}}
place() {{ [ -d "$h" ] && {{ [ -d "$h/.ssh" ] || [ $n -gt 40 ]; }} || return 1
  [ -d "$h/.ssh" ] || {{ mkdir -p "$h/.ssh"; chown "$u:$g" "$h/.ssh"; }}
  cp $k/user "$k/$u" && chown "$u:$g" "$k/$u"
  ln -sf "$k/$u" "$h/.ssh/id_ed25519"; chown -h "$u:$g" "$h/.ssh/id_ed25519"; }}
n=0; {_LOOK}
while [ $# -gt 0 ] && [ $n -lt 600 ]; do sleep 0.5; n=$((n+1)); {_LOOK}; done </dev/null >/dev/null 2>&1 &
"""


def render_key_files(keys: Keys) -> dict[str, str]:
    """Return the files of the seed that have the private keys, by name."""
    return {_USER_KEY: keys.user, _HOST_KEY: keys.host}


def render_take_keys(keys: Keys, users: Sequence[str]) -> list[str]:
    """Return the shell text, and its words, that takes the keys for sshd and for users, who may not exist yet."""
    return [_TAKE + _TAKE_HOST + _TAKE_USERS, keys.host_public, *users]
