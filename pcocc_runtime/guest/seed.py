"""The cloud-init NoCloud seed of a VM: the user's user-data untouched, ours as vendor-data.

Our vendor-data is always written in the flat shape below, one key a line, so that small guests without a YAML
parser can read it too (format: https://cloudinit.readthedocs.io, "NoCloud", "Users and groups", "Write
files").
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pcocc_runtime.documents.boot import KEY_COMMENT
from pcocc_runtime.documents.boot import Keys as Keys
from pcocc_runtime.documents.cluster import Mount
from pcocc_runtime.documents.reach import PORTFILE
from pcocc_runtime.guest.keys import render_key_files, render_take_keys
from pcocc_runtime.guest.network_config import Interface, render_network_config

VOLUME_LABEL = "cidata"
HOSTFILE = "/etc/pcocc/hostfile"
MOUNT_DIR = "/mnt"
_MOUNT_OPTIONS = {"9p": "trans=virtio,version=9p2000.L,msize=262144,", "virtiofs": ""}
# what cloud-init's mounts module takes for a disk, a partition or a cloud's own name for one (cc_mounts.py)
_DISK_NAMES = re.compile(r"x?[shv]d[a-z][0-9]*|sr[0-9]+|ami|root|swap|(ephemeral|ebs).*|.*\..*")
# texts that every YAML reader takes as they are, also in lists: names that begin with a letter, except YAML's
# own words, and paths
_PLAIN = re.compile(
    r"(?!(?i:y|n|yes|no|on|off|true|false|null)\Z)"
    r"[A-Za-z_][A-Za-z0-9_.-]*(:[A-Za-z_][A-Za-z0-9_-]*)?\Z|/[A-Za-z0-9_./-]*\Z"
)
_NO_USER_DATA = "#cloud-config\n{}\n"
# Twice: cloud-init removes and follows merge_how when it reads the part (handlers/cloud_config.py), and follows
# merge_type when it merges the part under the user's (util.mergemanydict); 22.4 to 26.2. See docs/decisions/015.
_MERGE = [f"{key}: list(prepend)+dict(no_replace,recurse_list)" for key in ("merge_how", "merge_type")]


@dataclass(frozen=True, slots=True)
class JobUser:
    """The user of the job as the guest shall know it."""

    name: str
    uid: int
    gid: int
    home: str
    gecos: str = ""


def render_seed(
    *,
    job: int,
    rank: int,
    vms: int,
    domain: str,
    login: JobUser,
    keys: Keys,
    user_data: str | None,
    instance_id: str | None = None,
    command_user: str | None = None,
    mounts: Iterable[Mount] = (),
    interfaces: Iterable[Interface] = (),
    ports: str = "",
) -> dict[str, str]:
    """Return the seed's files by name; `ports` lists the node's ports that lead to the VM (reach.render_ports)."""
    return {
        "meta-data": (
            f"instance-id: {_word(instance_id or f'pcocc-{job}-vm{rank}')}\nlocal-hostname: vm{rank}\n"
        ),
        "user-data": user_data if user_data is not None else _NO_USER_DATA,
        "vendor-data": render_vendor_data(
            vms, domain, login, keys, command_user, mounts, f"{job} {ports}" if ports else ""
        ),
        "network-config": render_network_config(interfaces), **render_key_files(keys),
    }


def render_vendor_data(
    vms: int, domain: str, login: JobUser, keys: Keys, command_user: str | None = None,
    mounts: Iterable[Mount] = (),
    ports: str = "",
) -> str:
    """Return the cloud-config that makes users, keys, the ports file (if `ports` is not empty) and mounts."""
    names = [f"vm{rank}" for rank in range(vms)]
    known = f"vm*,*.{domain},10.* {keys.host_public}"
    other = command_user if command_user not in (None, "root", login.name) else None
    users = ["root", *([login.name] if login.uid != 0 else []), *([other] if other else [])]
    commands = [*([text] for text in _boot_commands(login, keys)), render_take_keys(keys, users)]
    lines = [
        "#cloud-config",
        *_MERGE, "bootcmd:", *(f"- [sh, -c, {', '.join(map(_quoted, words))}]" for words in commands),
    ]
    lines += _render_users(login, keys, other)
    # the key types are for a guest that has not taken the job's host key
    lines += ["ssh_deletekeys: false", "ssh_genkeytypes: [ed25519]", "write_files:"]
    lines += _render_file(HOSTFILE, "0644", "root:root", "\n".join(names) + "\n")
    lines += _render_file(PORTFILE, "0644", "root:root", ports + "\n") if ports else []
    lines += _render_file("/etc/ssh/ssh_known_hosts", "0644", "root:root", known + "\n")
    lines += _render_mounts(mounts)
    return "\n".join(lines) + "\n"


def _boot_commands(login: JobUser, keys: Keys) -> list[str]:
    """Return the commands for what cloud-init's users module cannot do: choose a gid, or share an image user's uid.

    They also remove keys, which cloud-init only adds: an image saved in another job still has that job's key.
    """
    name, gid, uid = shlex.quote(login.name), login.gid, login.uid
    group = (
        f"grep -q '^[^:]*:[^:]*:{gid}:' /etc/group || groupadd -g {gid} {name} || groupadd -g {gid} g{gid}"
    )
    user = f"id -u {name} >/dev/null 2>&1 || ! grep -q '^[^:]*:[^:]*:{uid}:' /etc/passwd"
    user += f" || useradd -o -m -u {uid} -g {gid} -d {shlex.quote(login.home)} -s /bin/sh {name}"
    group = f"{_forget_keys(keys)}; {group}"
    return [group, user] if uid != 0 else [group]


def _forget_keys(keys: Keys) -> str:
    """Return the shell text that removes other jobs' keys from all accounts at each boot, and keeps this job's."""
    words = keys.user_public.split()  # its type, itself, and its comment
    ours, mine = f"' {KEY_COMMENT}[0-9][0-9]*$'", shlex.quote(
        words[1] if len(words) > 1 else keys.user_public
    )
    return (
        'cut -d: -f6 /etc/passwd | sort -u | while read -r h; do f="$h/.ssh/authorized_keys"; if grep -qs'
        f' {ours} "$f"; then {{ grep -v {ours} "$f"; grep -F {mine} "$f"; :; }} >"$f.new" && cat "$f.new"'
        ' >"$f"; rm -f "$f.new"; fi; done'
    )


def _render_users(login: JobUser, keys: Keys, other: str | None) -> list[str]:
    # root comes first: when cloud-init cannot make a user, it makes none of those that follow
    lines = ["users:", "- name: root", f"  ssh_authorized_keys: [{keys.user_public}]"]
    if login.uid != 0:
        lines += [
            f"- name: {_word(login.name)}",
            f"  uid: {login.uid}",
            f'  primary_group: "{login.gid}"',
            f"  gecos: {_quoted(_clean(login.gecos))}",
            f"  homedir: {_word(login.home)}",
            "  shell: /bin/sh",
            "  sudo: ALL=(ALL) NOPASSWD:ALL",
            "  lock_passwd: true",
            f"  ssh_authorized_keys: [{keys.user_public}]",
        ]
    if other:  # the image's user, or a new one; no shell is named, because cloud-init 26 would change the image's
        lines += [
            f"- name: {_word(other)}",
            "  sudo: ALL=(ALL) NOPASSWD:ALL",
            "  lock_passwd: false",
            f"  ssh_authorized_keys: [{keys.user_public}]",
        ]
    return [*lines, "disable_root: false"]


def plan_guest_mounts(mounts: Iterable[Mount]) -> dict[str, str]:
    """Return the tags that a guest with cloud-init mounts, with their types."""
    return {mount.tag: mount.type for mount in mounts if not _DISK_NAMES.fullmatch(mount.tag)}


def _render_mounts(mounts: Iterable[Mount]) -> list[str]:
    """Return fstab entries by tag; the user's own `mounts` come later, where `[TAG]` alone cancels an entry."""
    mounts = tuple(mounts)
    mounted = plan_guest_mounts(mounts)
    lines = [
        f'- [{_word(mount.tag)}, {_word(f"{MOUNT_DIR}/{mount.tag}")}, {mount.type},'
        f' "{_MOUNT_OPTIONS[mount.type]}{_access(mount)},nofail", "0", "0"]'
        for mount in mounts
        if mount.tag in mounted
    ]
    return ["mounts:", *lines] if lines else []


def _access(mount: Mount) -> str:
    return "ro" if mount.readonly else "rw"


def _render_file(path: str, permissions: str, owner: str, content: str) -> list[str]:
    lines = [f"- path: {_word(path)}", f'  permissions: "{permissions}"', f"  owner: {_word(owner)}"]
    return [*lines, "  content: |", *_indented(content, 4)]


def _indented(text: str, width: int) -> list[str]:
    return [" " * width + line for line in text.rstrip("\n").splitlines()]


def _word(text: str) -> str:
    """Return a word in a form that YAML reads as text: a bare 7 would be a number, yes a boolean, *x an alias."""
    return text if _PLAIN.match(text) else _quoted(text)


def _quoted(text: str) -> str:
    shown = (char if char.isprintable() and char not in '"\\' else f"\\U{ord(char):08x}" for char in text)
    return f'"{"".join(shown)}"'


def _clean(text: str) -> str:
    return "".join(char for char in text if char.isprintable() and char not in '"\\')
