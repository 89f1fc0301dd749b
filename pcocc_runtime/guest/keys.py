"""The shell text by which a guest takes the job's private keys from its seed into memory, never to its disk.

They are files of their own, beside user-data and vendor-data: cloud-init keeps several copies of those on the
disk. POSIX sh, run by cloud-init's bootcmd at each boot, before sshd starts; it waits in the background, for
five minutes, for users that cloud-init makes after that.
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
# At an instance's first boot this does what cloud-init's ssh module would do, for that would also delete the link.
# The user's own cloud-config about such keys, which cloud-init has stored by then, has priority.
_TAKE_HOST = f"""\
chcon -t sshd_key_t $k/host 2>/dev/null
if [ -d {_HOST.rpartition("/")[0]} ] && [ ! -e {_STATE}/sem/config_ssh ]; then
  grep -qs '^ssh_deletekeys: false' {_STATE}/cloud-config.txt || rm -f /etc/ssh/ssh_host_*key*
  grep -qs '^ *ed25519_private:' {_STATE}/cloud-config.txt ||
    {{ ln -sf $k/host {_HOST}; (umask 022; echo "$0" >{_HOST}.pub); }}
fi
"""
# Looks once at all users without a key; it starts no process for a user who does not exist yet.
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
    """Return the shell text that takes the keys for sshd and for users, who may not exist yet, and its arguments."""
    return [_TAKE + _TAKE_HOST + _TAKE_USERS, keys.host_public, *users]
