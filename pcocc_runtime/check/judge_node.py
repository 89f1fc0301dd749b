"""What of a node itself is right or wrong: from what was seen to sentences, each with the command that mends it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from pcocc_runtime import naming
from pcocc_runtime.check import seen
from pcocc_runtime.documents.verdict import VERDICT_FILE
from pcocc_runtime.findings import FAILED, NOTE, WELL, Finding
from pcocc_runtime.qemu.version import TAKES_KVM_OPEN
from pcocc_runtime.tables import count

_SLOW = "about ten times slower than with KVM"
_SHARED = (
    "nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "ceph", "fuse.ceph", "glusterfs",
    "fuse.glusterfs", "panfs",
)
_LEAST_FREE = 1 << 30  # bytes: a guest that writes a little
_SKEW = 60.0  # seconds: munge refuses at 300, and certificates, leases and logs go wrong before


def judge_configuration(one: seen.Configuration) -> Iterator[Finding]:
    """Judge the site's files."""
    for text, hint in one.problems:
        yield Finding(FAILED, text, hint or "pcocc config check")
    if not one.problems:
        yield Finding(WELL, "/etc/pcocc can be read, and only root can write it")


def judge_programs(one: seen.Programs) -> Iterator[Finding]:
    """Judge what must be installed."""
    missing = [program for program in one.every if not program.found]
    for program in missing:
        package = program.rpm if one.dnf else program.deb
        level = FAILED if program.needed else NOTE
        yield Finding(
            level, f"the program {program.name} is not installed",
            f"{'dnf' if one.dnf else 'apt-get'} install {package}",
        )
    if not any(program.needed for program in missing):
        yield Finding(WELL, f"found: {', '.join(program.name for program in one.every if program.found)}")


def judge_tun(one: seen.DeviceFile) -> Iterator[Finding]:
    """Judge the device that taps are made with."""
    if one.mode is None:
        yield Finding(
            FAILED, f"{one.path} is missing: no VM can have a network",
            "modprobe tun, and 'tun' in /etc/modules-load.d/pcocc.conf",
        )
    elif one.trouble:
        yield Finding(
            FAILED, f"root cannot open {one.path}: {one.trouble}",
            "modprobe tun; in a container, give it the device 10:200",
        )
    else:
        yield Finding(WELL, f"{one.path} opens")


def judge_vhost(one: seen.Vhost) -> Iterator[Finding]:
    """Judge what passes the packets of VMs that run by KVM: the kernel (decision 053), or QEMU, which is slower."""
    path, load = one.device.path, "modprobe vhost_net"
    slower = "QEMU itself passes the packets of VMs, which is slower"
    if not one.allowed:
        yield Finding(WELL, f"{path} is not used: vhost-net is off in /etc/pcocc/pcocc.yaml")
    elif one.device.mode is None:
        yield Finding(
            NOTE, f"{path} is missing: {slower}", f"{load}, and 'vhost_net' in /etc/modules-load.d/pcocc.conf"
        )
    elif one.device.trouble:
        yield Finding(
            NOTE, f"root cannot open {path} ({one.device.trouble}): {slower}",
            f"{load}; in a container, give it the device 10:238",
        )
    else:
        yield Finding(WELL, f"{path} opens")


def judge_kvm(one: seen.Accelerator) -> Iterator[Finding]:
    """Judge whether users' VMs can open /dev/kvm."""
    path, mode = one.device.path, one.device.mode
    if one.setting == "tcg":
        yield Finding(
            NOTE, f"{path} is not used: accel is tcg in /etc/pcocc/pcocc.yaml, so VMs are emulated, {_SLOW}"
        )
    elif mode is None:
        yield Finding(
            FAILED, f"the node has no {path}: VMs are emulated, {_SLOW}",
            "modprobe kvm_intel, or kvm_amd; where the firmware has virtualization switched off, switch it on; "
            "where emulation is meant, write 'accel: tcg' in /etc/pcocc/pcocc.yaml",
        )  # fmt: skip
    elif mode & 0o006 == 0o006:
        yield Finding(WELL, f"{path} may be opened by everybody")
    elif mode & 0o060 != 0o060:
        yield Finding(
            FAILED, f"{path} may be opened by root only (mode {mode & 0o777:o})",
            f"chgrp kvm {path} && chmod 660 {path}",
        )
    elif one.qemu is not None and one.qemu >= TAKES_KVM_OPEN:
        yield Finding(
            WELL, f"{path} may be opened by group {one.device.group}; root hands it to the VMs of others"
        )
    else:
        least = ".".join(map(str, TAKES_KVM_OPEN))
        yield Finding(
            FAILED, f"{path} may be opened by group {one.device.group} only: VMs of others are emulated, {_SLOW}",
            f"usermod -aG {one.device.group} USER for each user, or chmod 666 {path} with a udev rule that keeps"
            f" it so, or a QEMU from {least} on, to which root can hand it open",
        )  # fmt: skip


def judge_accelerator(one: seen.Accelerator) -> Iterator[Finding]:
    """Judge what came of trying KVM, and say how old that is."""
    verdict = one.verdict
    if one.setting != "auto":
        yield Finding(WELL, f"accel is {one.setting} in /etc/pcocc/pcocc.yaml: nothing is tried")
        return
    if verdict is None:
        yield Finding(
            NOTE, "KVM has not been tried with this QEMU yet: the next start of slurmd tries it, or that of VMs",
            "systemctl restart slurmd",
        )
        return
    text = f"{verdict.kind}, since {_age(one.now - verdict.when)}: {verdict.why}"
    if verdict.kind == "kvm":
        yield Finding(WELL, text)
    elif verdict.again:
        yield Finding(FAILED, text, "'systemctl restart slurmd' tries again, with more time")
    else:
        yield Finding(
            FAILED, text,
            f"once {one.device.path} is mended: rm {naming.STATE_DIR / VERDICT_FILE} && systemctl restart slurmd; "
            "where emulation is meant, write 'accel: tcg' in /etc/pcocc/pcocc.yaml",
        )  # fmt: skip


def _age(seconds: int) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"


FORBIDDING = {  # sysctls: what forbids user namespaces, and what does not
    "kernel.unprivileged_userns_clone": ("0", "1"),  # Debian's kernels
    # Ubuntu's, from 23.10 on: made, but without any right inside
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
    "user.max_user_namespaces": ("0", "15000"),
}


def judge_user_namespaces(one: seen.UserNamespaces) -> Iterator[Finding]:
    """Judge whether virtiofsd can confine itself with a user's rights."""
    if not one.trouble:
        yield Finding(WELL, "users can make user namespaces")
        return
    text = (
        f"users cannot make user namespaces ({one.trouble}): directories can be exported over 9p, but"
        " not over virtiofs"
    )
    mends = [f"{name}={good}" for name, (bad, good) in FORBIDDING.items() if one.sysctls.get(name) == bad]
    if mends:
        yield Finding(FAILED, text, f"sysctl -w {' '.join(mends)}, and the same in /etc/sysctl.d/pcocc.conf")
    else:
        yield Finding(
            FAILED, text,
            "look for what forbids it: sysctl -a | grep -e userns -e user_namespaces; aa-status; getenforce",
        )


def judge_scratch(one: seen.Scratch) -> Iterator[Finding]:
    """Judge where VMs' disks are."""
    path = shlex.quote(one.path)
    if one.owner is None:
        yield Finding(
            NOTE, f"scratch {one.path} is not there yet: the first job makes it, on the disk that its path leads to",
            f"mkdir -p {path}",
        )
        return
    found = list(_judge_place(one, path))
    yield from found
    if all(finding.level != FAILED for finding in found):
        yield Finding(
            WELL, f"scratch {one.path}: {_gib(one.free)} of {_gib(one.size)} free, {one.filesystem}"
        )


def _judge_place(one: seen.Scratch, path: str) -> Iterator[Finding]:
    if one.owner != 0:
        yield Finding(
            FAILED, f"scratch {one.path} belongs to uid {one.owner}, not to root", f"chown root {path}"
        )
    if one.mode & 0o022 and not one.mode & 0o1000:  # see system/trust.py
        yield Finding(FAILED, f"scratch {one.path} can be written by others than root", f"chmod 755 {path}")
    if not one.mode & 0o001:
        yield Finding(
            FAILED, f"users cannot enter scratch {one.path} (mode {one.mode & 0o7777:o})", f"chmod 755 {path}"
        )
    if not one.writable:
        yield Finding(
            FAILED, f"scratch {one.path} cannot be written",
            f'mount -o remount,rw "$(findmnt -no TARGET -T {path})"',
        )
    if one.filesystem in _SHARED:
        hint = "set scratch in /etc/pcocc/pcocc.yaml to a directory on each node's own disk"
        yield Finding(FAILED, f"scratch {one.path} is on {one.filesystem}, which nodes share", hint)
    if one.free < _LEAST_FREE:
        yield Finding(
            FAILED, f"scratch {one.path} has {_gib(one.free)} free of {_gib(one.size)}",
            f"du -xhd1 {path} shows what takes the room",
        )
    if one.filesystem in ("tmpfs", "ramfs"):
        yield Finding(
            NOTE, f"scratch {one.path} is in memory ({one.filesystem}): what VMs write takes memory of the node", None
        )


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


def judge_cache(one: seen.Cache) -> Iterator[Finding]:
    """Judge the node's copies of images."""
    if one.directory is None:
        yield Finding(WELL, "the site has no image cache")
    elif not one.trusted:
        yield Finding(
            FAILED, f"the image cache {one.directory} is not a directory that only its owner can write",
            f"install -d -o pcocc-cache -m 755 {shlex.quote(one.directory)}",
        )  # fmt: skip
    elif not one.answers:
        yield Finding(
            FAILED, "the image cache's service does not answer", "systemctl enable --now pcocc-cache.socket"
        )
    else:
        yield Finding(WELL, f"the image cache {one.directory} is there, and its service answers")


def judge_devices(one: seen.Devices) -> Iterator[Finding]:
    """Judge whether VMs can have the node's devices; a node need not have all that the site names."""
    for text in one.missing:
        yield Finding(NOTE, text)
    for text, hint in one.faults:
        yield Finding(FAILED, text, f"pcocc node devices; {hint}")
    if not one.named:
        yield Finding(WELL, "the site gives no devices to VMs")
    elif not one.faults:
        yield Finding(WELL, f"VMs can have all of the node's {count(one.count, 'device')}")


def judge_clock(one: seen.Clock) -> Iterator[Finding]:
    """Judge the clock."""
    if one.ahead is not None and abs(one.ahead) > _SKEW:
        way = "ahead of" if one.ahead > 0 else "behind"
        yield Finding(
            FAILED, f"the clock is {abs(one.ahead):.0f} s {way} slurmctld's",
            "systemctl restart chrony, or chronyc makestep",
        )
        return
    known = f"the clock is within {_SKEW:.0f} s of slurmctld's"
    if one.ahead is None:
        known = "slurmctld's clock is not known"
    if one.kept:
        yield Finding(WELL, known)
    else:
        yield Finding(
            NOTE, f"{known}, and the kernel knows of no program that keeps it right",
            "apt-get install chrony (RHEL: dnf install chrony)",
        )
