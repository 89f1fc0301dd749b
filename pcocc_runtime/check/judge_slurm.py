"""What of Slurm on a node is right or wrong: the plugin, how tasks are confined, and how long they have to end."""

from __future__ import annotations

from collections.abc import Iterator

from pcocc_runtime.check import seen
from pcocc_runtime.findings import FAILED, NOTE, WELL, Finding

_RESTART = "systemctl restart slurmd"


def judge_plugin(one: seen.Plugin) -> Iterator[Finding]:
    """Judge whether this slurmd has the plugin, and the right one."""
    found = next(_find_fault(one), None)
    if found is None:
        yield Finding(WELL, f"{one.named}, built for Slurm {_release(one.built)}, is loaded by slurmd")
    else:
        yield found


def _find_fault(one: seen.Plugin) -> Iterator[Finding]:
    """Yield what is wrong with the plugin, the first of it first."""
    again = (
        "install pcocc again, built with this Slurm's headers (the package for this release), then "
        + _RESTART
    )
    if one.named is None:
        yield Finding(
            FAILED, f"{one.config} does not name pcocc.so",
            f"echo 'required {one.expected}' >>{one.config} && {_RESTART}",
        )
    elif one.built is None:
        yield Finding(FAILED, f"the plugin {one.named} cannot be opened: {one.trouble}", again)
    if one.slurmd is None:
        yield Finding(
            FAILED, "slurmd does not run on this node",
            "systemctl start slurmd, and 'journalctl -u slurmd' says why",
        )
    elif one.built != one.slurmd:
        yield Finding(
            FAILED,
            f"{one.named} is built for Slurm {_release(one.built)}, and slurmd is {_release(one.slurmd)}",
            again,
        )
    if one.version != one.runtime:
        yield Finding(
            FAILED, f"{one.named} is of pcocc {one.version or '?'}, and the runtime of {one.runtime}", again
        )
    if not one.loaded:
        yield Finding(FAILED, f"slurmd was started before {one.named} was named in {one.config}", _RESTART)
    if one.replaced:
        yield Finding(NOTE, f"slurmd was started before {one.named} was replaced", _RESTART)


def _release(release: tuple[int, int] | None) -> str:
    return "?" if release is None else f"{release[0]:02}.{release[1]:02}"


def judge_versions(one: seen.Versions) -> Iterator[Finding]:
    """Say what runs here."""
    if one.qemu_trouble:
        yield Finding(
            FAILED, one.qemu_trouble,
            "apt-get install qemu-system-x86 (RHEL: dnf install qemu-kvm, and 'qemu' in"
            " /etc/pcocc/pcocc.yaml)",
        )
    else:
        yield Finding(WELL, f"pcocc {one.runtime}, Slurm {one.slurm or '?'}, QEMU {one.qemu}")


def judge_cgroups(one: seen.Cgroups) -> Iterator[Finding]:
    """Judge whether tasks, and so VMs, are confined."""
    found = list(_find_gaps(one))
    yield from found
    if not found:
        plugin = one.settings.get("CgroupPlugin") or "autodetect"
        yield Finding(
            WELL, f"tasks are confined by cgroups ({plugin}; mounted: {' and '.join(sorted(one.mounted))})"
        )


def _find_gaps(one: seen.Cgroups) -> Iterator[Finding]:
    plugin = one.settings.get("CgroupPlugin", "")
    chosen = "cgroup/v2" if one.unified and plugin == "autodetect" else plugin
    if not one.mounted:
        yield Finding(
            FAILED, "no cgroup hierarchy is mounted at /sys/fs/cgroup",
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
        )
    if chosen.endswith("v2") and one.old:
        mend = "cgroup_no_v1=all on the kernel's command line, and unmount what 'grep ^cgroup /proc/mounts' shows"
        yield Finding(
            FAILED,
            f"CgroupPlugin is {plugin}, and hierarchies of version 1 are mounted ({', '.join(one.old)}): slurmd does"
            " not start with them",
            mend if one.unified else "boot with systemd.unified_cgroup_hierarchy=1, or set CgroupPlugin=cgroup/v1",
        )  # fmt: skip
    if not one.settings:
        return  # slurmctld is silent, which is told elsewhere
    if plugin == "disabled":
        yield Finding(
            NOTE, "CgroupPlugin is disabled: nothing limits the memory of a VM",
            "CgroupPlugin=autodetect in cgroup.conf",
        )
        return
    if one.settings.get("ProctrackType") != "proctrack/cgroup":
        text = (
            f"ProctrackType is {one.settings.get('ProctrackType') or 'not known'}: processes can get away"
            " from their job"
        )
        yield Finding(
            NOTE, text, "ProctrackType=proctrack/cgroup in slurm.conf, then restart slurmctld and all slurmd"
        )
    if "task/cgroup" not in one.settings.get("TaskPlugin", ""):
        text = "TaskPlugin has no task/cgroup: VMs are not kept to their CPUs and memory"
        yield Finding(NOTE, text, "TaskPlugin=task/cgroup,task/affinity in slurm.conf")
    elif one.settings.get("ConstrainRAMSpace", "no") != "yes":
        yield Finding(
            NOTE, "ConstrainRAMSpace is not yes: VMs are not kept to their memory",
            "ConstrainRAMSpace=yes in cgroup.conf",
        )


def judge_grace(one: seen.Grace) -> Iterator[Finding]:
    """Judge whether Slurm leaves guests the time to power off that the site gives them."""
    if one.kill_wait is None:
        yield Finding(NOTE, "slurmctld does not say what KillWait is", "scontrol show config | grep KillWait")
    elif one.kill_wait <= one.shutdown_grace:
        yield Finding(
            FAILED,
            f"KillWait is {one.kill_wait} s, and guests have {one.shutdown_grace} s to power off: Slurm kills"
            " them before that",
            f"KillWait={one.shutdown_grace + 10} in slurm.conf and 'scontrol reconfigure', or a lower"
            " shutdown-grace in /etc/pcocc/pcocc.yaml",
        )  # fmt: skip
    else:
        yield Finding(
            WELL, f"KillWait, {one.kill_wait} s, is longer than shutdown-grace, {one.shutdown_grace} s"
        )
