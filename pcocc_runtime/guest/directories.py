"""Shell text by which a guest mounts a directory that its VM was given while it runs, and unmounts it: POSIX sh.

It is run with root's rights where the user has them in the guest, and says by its exit status what has become of it.
"""

from __future__ import annotations

import shlex

from pcocc_runtime.documents.cluster import Mount
from pcocc_runtime.guest.seed import MOUNT_DIR

DONE_THERE, NO_ROOT, OCCUPIED, NO_VIRTIOFS, REFUSED = 0, 70, 71, 72, 73
_TRIES = 40  # of half a second: a guest takes a second or two to find a new device, and more where it is emulated


def render_mounting(mount: Mount) -> str:
    """Return the text; the guest has not found the new device yet, which nothing announces to a shell."""
    where = shlex.quote(f"{MOUNT_DIR}/{mount.tag}")
    return f"""umask 022; n={_TRIES}
[ "$(id -u)" = 0 ] || exit {NO_ROOT}
while read -r _s d _x; do [ "$d" != {where} ] || exit {OCCUPIED}; done </proc/mounts
made=; [ -d {where} ] || {{ mkdir -p {where} 2>&1 && made=1; }} || exit {REFUSED}
until e=$(mount -t virtiofs -o {"ro" if mount.readonly else "rw"} {shlex.quote(mount.tag)} {where} 2>&1); do
  s={REFUSED}
  grep -qw virtiofs /proc/filesystems || s={NO_VIRTIOFS}
  n=$((n - 1))
  if [ $s = {NO_VIRTIOFS} ] || [ $n = 0 ]; then
    [ -z "$made" ] || rmdir {where}
    printf '%s\\n' "$e"; exit $s
  fi
  sleep 0.5
done
"""


def render_unmounting(tag: str) -> str:
    """Return the text that unmounts a directory wherever the guest has mounted it."""
    where = shlex.quote(f"{MOUNT_DIR}/{tag}")
    return f"""m=$(cat /proc/mounts)
while read -r s d k _x; do
  [ "$s $k" = {shlex.quote(f"{tag} virtiofs")} ] || continue
  [ "$(id -u)" = 0 ] || exit {NO_ROOT}
  e=$(umount "$(printf %b "$d")" 2>&1 </dev/null) || {{ printf '%s\\n' "$e"; exit {REFUSED}; }}
done <<EOF
$m
EOF
rmdir {where} 2>/dev/null
exit {DONE_THERE}
"""


def render_command_to_type(mount: Mount) -> str:
    """Return what a user types in a guest that pcocc cannot enter."""
    where = f"{MOUNT_DIR}/{mount.tag}"
    return f"mkdir -p {where} && mount -t virtiofs {'-o ro ' if mount.readonly else ''}{mount.tag} {where}"
