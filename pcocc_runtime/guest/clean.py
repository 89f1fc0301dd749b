"""The shell texts by which a guest puts aside what identifies its machine during a save, and restores it.

What is put aside lies in /run, which is in no image. Files are overwritten before they are deleted, and freed
blocks discarded: otherwise their content would still be on the disk. POSIX sh; `R` is the root directory, for tests.
"""

from __future__ import annotations

import shlex

from pcocc_runtime.documents.boot import KEY_COMMENT

CLEAN_ARCHIVE = "/run/pcocc-clean.tar"
_OURS = f" {KEY_COMMENT}[0-9][0-9]*"
# seconds until the guest restores it by itself: without its keys, nobody may be able to log in any more
_PATIENCE = 300
# what `cloud-init clean` removes; scripts/ and seed/ may be the image's own
_CLOUD = "instance instances data sem"
_AS_ROOT = 'if [ "$(id -u)" = 0 ]; then exec sh -c "$1"; else exec sudo -n sh -c "$1"; fi'
LEFT = "what programs have written elsewhere, such as logs, shell histories and the keys of other services"

_RESTORE = f"""\
R=${{R:-}}; cd "$R/" && [ -e "$R{CLEAN_ARCHIVE}" ] || exit 0
tar -xpf "$R{CLEAN_ARCHIVE}" && rm -f "$R{CLEAN_ARCHIVE}"
"""
_LATER = shlex.quote(f"sleep {_PATIENCE}; {_RESTORE}")
_CLEAN = f"""\
umask 077; R=${{R:-}}; aside=$R{CLEAN_ARCHIVE}; cd "$R/" || exit 1
set --
for f in etc/machine-id var/lib/dbus/machine-id var/lib/systemd/random-seed etc/ssh/ssh_host_*key \\
  etc/ssh/ssh_host_*key.pub var/log/cloud-init.log var/log/cloud-init-output.log; do
  [ -f "$f" ] && [ ! -L "$f" ] && set -- "$@" "$f"
done
for f in {_CLOUD}; do [ -e "var/lib/cloud/$f" ] || [ -L "var/lib/cloud/$f" ] && set -- "$@" "var/lib/cloud/$f"; done
IFS='
'
for h in $(cut -d: -f6 etc/passwd | sort -u); do
  h=${{h#/}}; g="${{h:-.}}/.ssh/authorized_keys"
  grep -qs '{_OURS}$' "$g" && set -- "$@" "$g"
done
unset IFS
[ -e "$aside" ] || {{ tar -cpf "$aside.new" "$@" && mv "$aside.new" "$aside"; }} || exit 1
[ "$R" ] || env -i PATH="$PATH" setsid sh -c {_LATER} </dev/null >/dev/null 2>&1 &
wipe() {{ [ -L "$1" ] || shred -n1 -zu "$1" 2>/dev/null || rm -f "$1"; }}
for f; do
  case $f in
  */authorized_keys)
    grep -v '{_OURS}$' "$f" >"$aside.keys"; cat "$aside.keys" >"$f"; rm -f "$aside.keys" ;;
  etc/machine-id) : >"$f" ;;
  var/lib/cloud/*) find "$f" -type f | while IFS= read -r one; do wipe "$one"; done; rm -rf "$f" ;;
  *) wipe "$f" ;;
  esac
done
sync; [ "$R" ] || fstrim -a >/dev/null 2>&1; :
"""


def render_clean() -> list[str]:
    """Return the command that puts aside, in a VM, what identifies it."""
    return ["sh", "-c", _AS_ROOT, "sh", _CLEAN]


def render_restore() -> list[str]:
    """Return the command that restores it; nothing happens when nothing was put aside."""
    return ["sh", "-c", _AS_ROOT, "sh", _RESTORE]
