"""The cloud-init NoCloud seed of a VM: the user's user-data untouched, ours as vendor-data.

Our vendor-data is always written in the flat shape below, one key a line, so that small guests without a YAML parser
can read it too (format: https://cloudinit.readthedocs.io, "NoCloud", "Users and groups", "Write files").
"""

from __future__ import annotations

from dataclasses import dataclass

VOLUME_LABEL = "cidata"
HOSTFILE = "/etc/pcocc/hostfile"
_NO_USER_DATA = "#cloud-config\n{}\n"


@dataclass(frozen=True, slots=True)
class Login:
    """The user of the job as the guest shall know it."""

    name: str
    uid: int
    gid: int
    home: str
    gecos: str = ""


@dataclass(frozen=True, slots=True)
class Keys:
    """The job's own ssh keys in OpenSSH's formats: one logs in, the other identifies the VMs."""

    user: str
    user_public: str
    host: str
    host_public: str


def render_seed(
    *,
    job: int,
    rank: int,
    vms: int,
    domain: str,
    login: Login,
    keys: Keys,
    user_data: str | None,
    instance_id: str | None = None,
) -> dict[str, str]:
    """Return the seed's files by name."""
    return {
        "meta-data": f"instance-id: {instance_id or f'pcocc-{job}-vm{rank}'}\nlocal-hostname: vm{rank}\n",
        "user-data": user_data if user_data is not None else _NO_USER_DATA,
        "vendor-data": render_vendor_data(vms, domain, login, keys),
    }


def render_vendor_data(vms: int, domain: str, login: Login, keys: Keys) -> str:
    """Return the cloud-config that makes the user, the keys and the host file."""
    names = [f"vm{rank}" for rank in range(vms)]
    known = f"vm*,*.{domain},10.* {keys.host_public}"
    home = login.home.rstrip("/")
    lines = ["#cloud-config", "bootcmd:", f'- [sh, -c, "{_group_command(login)}"]']
    lines += _render_users(login, keys)
    lines += ["ssh_keys:", "  ed25519_private: |", *_indented(keys.host, 4)]
    lines += [f"  ed25519_public: {keys.host_public}", "write_files:"]
    lines += _render_file(HOSTFILE, "0644", "root:root", "\n".join(names) + "\n")
    lines += _render_file("/etc/ssh/ssh_known_hosts", "0644", "root:root", known + "\n")
    owner = login.name  # with a group, cloud-init wants its name, which the node need not know
    if login.uid != 0:
        lines += _render_file(f"{home}/.ssh/id_ed25519", "0600", owner, keys.user, defer=True)
    lines += _render_file("/root/.ssh/id_ed25519", "0600", "root:root", keys.user)
    return "\n".join(lines) + "\n"


def _group_command(login: Login) -> str:
    # cloud-init's users module cannot choose a gid; bootcmd runs before it
    return f"grep -q '^[^:]*:[^:]*:{login.gid}:' /etc/group || groupadd -g {login.gid} {login.name}"


def _render_users(login: Login, keys: Keys) -> list[str]:
    lines = ["users:"]
    if login.uid != 0:
        lines += [
            f"- name: {login.name}",
            f"  uid: {login.uid}",
            f'  primary_group: "{login.gid}"',
            f"  gecos: {_quoted(login.gecos)}",
            f"  homedir: {login.home}",
            "  shell: /bin/sh",
            "  sudo: ALL=(ALL) NOPASSWD:ALL",
            "  lock_passwd: true",
            f"  ssh_authorized_keys: [{keys.user_public}]",
        ]
    lines += [
        "- name: root",
        f"  ssh_authorized_keys: [{keys.user_public}]",
        "disable_root: false",
    ]
    return lines


def _render_file(path: str, permissions: str, owner: str, content: str, defer: bool = False) -> list[str]:
    lines = [f"- path: {path}", f'  permissions: "{permissions}"', f"  owner: {owner}"]
    if defer:
        lines.append("  defer: true")
    return [*lines, "  content: |", *_indented(content, 4)]


def _indented(text: str, width: int) -> list[str]:
    return [" " * width + line for line in text.rstrip("\n").splitlines()]


def _quoted(text: str) -> str:
    clean = "".join(char for char in text if char.isprintable() and char not in '"\\')
    return f'"{clean}"'
