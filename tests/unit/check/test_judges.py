"""Every point of `pcocc node check`, judged from what might be seen on a node."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from pcocc_runtime.check import judge_network, judge_node, judge_slurm, seen
from pcocc_runtime.documents.verdict import Verdict
from pcocc_runtime.findings import FAILED, NOTE, WELL, Finding

KVM = seen.DeviceFile("/dev/kvm", 0o666, "kvm")
ACCELERATOR = seen.Accelerator("auto", KVM, (7, 2), Verdict("kvm", "/dev/kvm ran a small guest", 1000), 1000 + 3 * 86400 + 5)
PLUGIN = seen.Plugin(
    "/etc/slurm/plugstack.conf", "/p/pcocc.so", "/p/pcocc.so", "0.1.0", built=(24, 11), version="0.1.0",
    slurmd=(24, 11), loaded=True,
)  # fmt: skip
SCRATCH = seen.Scratch("/scratch", 0, 0o755, "ext4", True, 20 << 30, 100 << 30)
WALLS = seen.Walls(False, (), ("inet pcocc", "inet pcocc-7"), (7,), "/l/node start")
CGROUPS = seen.Cgroups(
    {
        "CgroupPlugin": "cgroup/v2", "ProctrackType": "proctrack/cgroup", "TaskPlugin": "task/affinity,task/cgroup",
        "ConstrainRAMSpace": "yes",
    },
    frozenset({"v2"}),
)
PROGRAMS = seen.Programs((
    seen.Program("nft", "nftables", "nft-rpm", True),
    seen.Program("ping", "iputils-ping", "iputils", True, needed=False),
))
USERS = seen.UserNamespaces("", {"user.max_user_namespaces": "15000"})


def missing(index: int, dnf: bool = False) -> seen.Programs:
    every = tuple(replace(one, found=place != index) for place, one in enumerate(PROGRAMS.every))
    return seen.Programs(every, dnf)


def of_kvm(mode: int | None, qemu: tuple[int, int] = (7, 2), setting: str = "auto") -> seen.Accelerator:
    return replace(ACCELERATOR, device=replace(KVM, mode=mode), qemu=qemu, setting=setting)


def of_verdict(verdict: Verdict | None, setting: str = "auto") -> seen.Accelerator:
    return replace(ACCELERATOR, verdict=verdict, setting=setting)


VHOST = seen.DeviceFile("/dev/vhost-net", 0o600)
CASES: list[tuple[Callable[[Any], Iterable[Finding]], Any, str, str, str | None]] = [
    # the judge, what it sees, the level, words of the sentence, and words of the remedy
    (judge_node.judge_configuration, seen.Configuration((), "d"), WELL, "only root can write it", None),
    (judge_node.judge_configuration, seen.Configuration((("pcocc.yaml:3: wrong", None),), "d"), FAILED,
     "pcocc.yaml:3: wrong", "pcocc config check"),
    (judge_node.judge_configuration, seen.Configuration((("x", "chmod go-w x"),), "d"), FAILED, "x", "chmod go-w x"),
    (judge_node.judge_programs, PROGRAMS, WELL, "found: nft, ping", None),
    (judge_node.judge_programs, missing(0), FAILED, "the program nft is not installed", "apt-get install nftables"),
    (judge_node.judge_programs, missing(0, dnf=True), FAILED, "the program nft is not installed", "dnf install nft-rpm"),
    (judge_node.judge_programs, missing(1), NOTE, "the program ping is not installed", "apt-get install iputils-ping"),
    (judge_node.judge_tun, seen.DeviceFile("/dev/net/tun", 0o600), WELL, "/dev/net/tun opens", None),
    (judge_node.judge_tun, seen.DeviceFile("/dev/net/tun", None), FAILED, "no VM can have a network", "modprobe tun"),
    (judge_node.judge_tun, seen.DeviceFile("/dev/net/tun", 0o600, trouble="No such device"), FAILED, "No such device",
     "modprobe tun"),
    (judge_node.judge_vhost, seen.Vhost(VHOST, True), WELL, "/dev/vhost-net opens", None),
    (judge_node.judge_vhost, seen.Vhost(replace(VHOST, mode=None), True), NOTE, "is missing: QEMU itself passes the packets",
     "modprobe vhost_net, and 'vhost_net' in /etc/modules-load.d/pcocc.conf"),
    (judge_node.judge_vhost, seen.Vhost(replace(VHOST, trouble="No such device"), True), NOTE,
     "root cannot open /dev/vhost-net (No such device)", "10:238"),
    (judge_node.judge_vhost, seen.Vhost(replace(VHOST, mode=None), False), WELL, "vhost-net is off", None),
    (judge_node.judge_kvm, of_kvm(0o666), WELL, "opened by everybody", None),
    (judge_node.judge_kvm, of_kvm(0o660, (8, 2)), WELL, "root hands it to the VMs of others", None),
    (judge_node.judge_kvm, of_kvm(0o660), FAILED, "by group kvm only: VMs of others are emulated", "usermod -aG kvm USER"),
    (judge_node.judge_kvm, of_kvm(0o600, (10, 0)), FAILED, "by root only (mode 600)", "chgrp kvm /dev/kvm && chmod 660 /dev/kvm"),
    (judge_node.judge_kvm, of_kvm(None), FAILED, "has no /dev/kvm: VMs are emulated, about ten times slower",
     "modprobe kvm_intel"),
    (judge_node.judge_kvm, of_kvm(None, setting="tcg"), NOTE, "accel is tcg", None),
    (judge_node.judge_accelerator, ACCELERATOR, WELL, "kvm, since 3 d: /dev/kvm ran a small guest", None),
    (judge_node.judge_accelerator, of_verdict(Verdict("tcg", "too slow", ACCELERATOR.now - 7300)), FAILED,
     "tcg, since 2 h: too slow",
     "rm /run/pcocc/.state/accel.json && systemctl restart slurmd"),
    (judge_node.judge_accelerator, of_verdict(Verdict("tcg", "busy", ACCELERATOR.now, True)), FAILED, "tcg, since 0 s: busy",
     "systemctl restart slurmd"),
    (judge_node.judge_accelerator, of_verdict(None), NOTE, "has not been tried", "systemctl restart slurmd"),
    (judge_node.judge_accelerator, of_verdict(None, "kvm"), WELL, "accel is kvm", None),
    (judge_node.judge_user_namespaces, USERS, WELL, "can make user namespaces", None),
    (judge_node.judge_user_namespaces, seen.UserNamespaces("no", {"user.max_user_namespaces": "0"}), FAILED, "(no)",
     "sysctl -w user.max_user_namespaces=15000"),
    (judge_node.judge_user_namespaces, seen.UserNamespaces("no", {"kernel.apparmor_restrict_unprivileged_userns": "1"}),
     FAILED, "(no)",
     "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
    (judge_node.judge_user_namespaces, seen.UserNamespaces("no", {"kernel.unprivileged_userns_clone": "0"}), FAILED, "(no)",
     "sysctl -w kernel.unprivileged_userns_clone=1"),
    (judge_node.judge_user_namespaces, seen.UserNamespaces("no", {}), FAILED, "(no)", "aa-status"),
    (judge_node.judge_scratch, SCRATCH, WELL, "20.0 GiB of 100.0 GiB free, ext4", None),
    (judge_node.judge_scratch, replace(SCRATCH, owner=None), NOTE, "is not there yet", "mkdir -p /scratch"),
    (judge_node.judge_scratch, replace(SCRATCH, owner=7), FAILED, "belongs to uid 7", "chown root /scratch"),
    (judge_node.judge_scratch, replace(SCRATCH, mode=0o777), FAILED, "written by others than root", "chmod 755 /scratch"),
    (judge_node.judge_scratch, replace(SCRATCH, mode=0o700), FAILED, "users cannot enter", "chmod 755 /scratch"),
    (judge_node.judge_scratch, replace(SCRATCH, writable=False), FAILED, "cannot be written", "mount -o remount,rw"),
    (judge_node.judge_scratch, replace(SCRATCH, filesystem="nfs4"), FAILED, "on nfs4, which nodes share", "set scratch"),
    (judge_node.judge_scratch, replace(SCRATCH, free=1 << 20), FAILED, "0.0 GiB free of 100.0 GiB", "du -xhd1 /scratch"),
    (judge_node.judge_scratch, replace(SCRATCH, filesystem="tmpfs"), NOTE, "in memory (tmpfs)", None),
    (judge_node.judge_devices, seen.Devices(False), WELL, "the site gives no devices to VMs", None),
    (judge_node.judge_devices, seen.Devices(True, 8), WELL, "VMs can have all of the node's 8 devices", None),
    (judge_node.judge_devices, seen.Devices(True, 8, (("x is lost", "look"),)), FAILED, "x is lost", "pcocc node devices; look"),
    (judge_node.judge_devices, seen.Devices(True, 0, (), ("no mlx5_0",)), NOTE, "no mlx5_0", None),
    (judge_node.judge_cache, seen.Cache(None), WELL, "no image cache", None),
    (judge_node.judge_cache, seen.Cache("/c", True, True), WELL, "its service answers", None),
    (judge_node.judge_cache, seen.Cache("/c", False, True), FAILED, "only its owner can write",
     "install -d -o pcocc-cache -m 755 /c"),
    (judge_node.judge_cache, seen.Cache("/c", True, False), FAILED, "does not answer",
     "systemctl enable --now pcocc-cache.socket"),
    (judge_node.judge_clock, seen.Clock(-1.0, True), WELL, "within 60 s of slurmctld's", None),
    (judge_node.judge_clock, seen.Clock(90.0, True), FAILED, "90 s ahead of slurmctld's", "systemctl restart chrony"),
    (judge_node.judge_clock, seen.Clock(-90.0, False), FAILED, "90 s behind slurmctld's", "systemctl restart chrony"),
    (judge_node.judge_clock, seen.Clock(0.0, False), NOTE, "no program that keeps it right", "install chrony"),
    (judge_node.judge_clock, seen.Clock(None, True), WELL, "is not known", None),
    (judge_network.judge_names, seen.Names(("n1", "n2"), ()), WELL, "the names of 2 nodes have an IPv4 address here", None),
    (judge_network.judge_names, seen.Names(("n1", "n2"), ("n2",)), FAILED, "no IPv4 address is known here for n2", "/etc/hosts"),
    (judge_network.judge_names, seen.Names(tuple("abcdefgh"), tuple("abcdefgh")), FAILED, "a, b, c, d, e and 3 more", "getent"),
    (judge_network.judge_names, seen.Names((), ()), FAILED, "lists no nodes", "scontrol ping"),
    (judge_network.judge_walls, WALLS, WELL, "nft's table inet pcocc is there, and those of 1 job", None),
    (judge_network.judge_walls, replace(WALLS, tables=("inet pcocc",)), FAILED,
     "the firewall of 1 job with VMs here is missing: 7", "scancel 7"),
    (judge_network.judge_walls, replace(WALLS, unguarded=True), FAILED, "the routing rules that keep", "/l/node start"),
    (judge_network.judge_walls, replace(WALLS, unguarded=True, forwards=True), FAILED, "net.ipv4.ip_forward", "/l/node start"),
    (judge_network.judge_walls, replace(WALLS, unguarded=True, open=("eth0",)), FAILED, "eth0 forward packets", "/l/node start"),
    (judge_network.judge_walls, replace(WALLS, tables=(), jobs=()), FAILED, "is missing", "flush its own tables only"),
    (judge_network.judge_walls, replace(WALLS, trouble="no"), FAILED, "cannot be used: no", "modprobe nf_tables"),
    (judge_network.judge_filter, seen.Filter(()), WELL, "drops none of the VMs' packets", None),
    (judge_network.judge_filter, seen.Filter((seen.Chain("ip filter FORWARD", "forward", True),)), WELL, "drops none", None),
    (judge_network.judge_filter, seen.Filter((seen.Chain("ip filter FORWARD", "forward", False),)), FAILED,
     "chain ip filter FORWARD drops by its policy",
     'nft insert rule ip filter FORWARD iifname "pcn*" accept; nft insert rule ip filter FORWARD oifname "pcn*" accept'),
    (judge_network.judge_filter, seen.Filter((seen.Chain("inet f in", "input", False),)), NOTE, "24832-25087",
     "udp dport 24832-25087 accept"),
    (judge_network.judge_filter, seen.Filter((seen.Chain("inet firewalld filter_FORWARD", "forward", False, by_rule=True),)),
     FAILED, "chain inet firewalld filter_FORWARD drops by its last rule",
     "firewall-cmd --permanent --zone=trusted --add-interface=pcn+ && firewall-cmd --reload"),
    (judge_network.judge_filter, seen.Filter((seen.Chain("inet firewalld filter_INPUT", "input", False, by_rule=True),)),
     NOTE, "24832-25087", "firewall-cmd --permanent --add-port=24832-25087/udp && firewall-cmd --reload"),
    (judge_network.judge_filter, seen.Filter((), legacy=("filter",)), NOTE, "iptables-legacy has tables here (filter)",
     "iptables-legacy -S FORWARD"),
    (judge_network.judge_filter, seen.Filter((), "no JSON"), NOTE, "no JSON", "nft list ruleset"),
    (judge_slurm.judge_plugin, PLUGIN, WELL, "/p/pcocc.so, built for Slurm 24.11, is loaded by slurmd", None),
    (judge_slurm.judge_plugin, replace(PLUGIN, named=None), FAILED, "does not name pcocc.so",
     "echo 'required /p/pcocc.so' >>/etc/slurm/plugstack.conf && systemctl restart slurmd"),
    (judge_slurm.judge_plugin, replace(PLUGIN, built=None, trouble="no such file"), FAILED, "cannot be opened: no such file",
     "install pcocc again"),
    (judge_slurm.judge_plugin, replace(PLUGIN, built=(22, 5)), FAILED, "built for Slurm 22.05, and slurmd is 24.11",
     "install pcocc again"),
    (judge_slurm.judge_plugin, replace(PLUGIN, slurmd=None), FAILED, "slurmd does not run", "systemctl start slurmd"),
    (judge_slurm.judge_plugin, replace(PLUGIN, version="0.0.9"), FAILED, "of pcocc 0.0.9, and the runtime of 0.1.0",
     "install pcocc again"),
    (judge_slurm.judge_plugin, replace(PLUGIN, version=None), FAILED, "of pcocc ?", "install pcocc again"),
    (judge_slurm.judge_plugin, replace(PLUGIN, loaded=False), FAILED, "was started before /p/pcocc.so was named",
     "systemctl restart slurmd"),
    (judge_slurm.judge_plugin, replace(PLUGIN, replaced=True), NOTE, "before /p/pcocc.so was replaced",
     "systemctl restart slurmd"),
    (judge_slurm.judge_versions, seen.Versions("0.1.0", "24.11.5", "10.0.2"), WELL,
     "pcocc 0.1.0, Slurm 24.11.5, QEMU 10.0.2", None),
    (judge_slurm.judge_versions, seen.Versions("0.1.0", "", "", "qemu is not installed"), FAILED, "qemu is not installed",
     "qemu-system-x86"),
    (judge_slurm.judge_cgroups, CGROUPS, WELL, "confined by cgroups (cgroup/v2; mounted: v2)", None),
    (judge_slurm.judge_cgroups, replace(CGROUPS, mounted=frozenset()), FAILED, "no cgroup hierarchy", "mount -t cgroup2"),
    (judge_slurm.judge_cgroups, replace(CGROUPS, mounted=frozenset({"v1", "v2"}), old=("cpu,cpuacct", "name=systemd")), FAILED,
     "CgroupPlugin is cgroup/v2, and hierarchies of version 1 are mounted (cpu,cpuacct, name=systemd)", "CgroupPlugin=cgroup/v1"),
    (judge_slurm.judge_cgroups, replace(CGROUPS, old=("name=old",), unified=True), FAILED, "mounted (name=old): slurmd does",
     "cgroup_no_v1=all"),
    (judge_slurm.judge_cgroups,
     replace(CGROUPS, settings={**CGROUPS.settings, "CgroupPlugin": "autodetect"}, old=("freezer",), unified=True), FAILED,
     "CgroupPlugin is autodetect, and hierarchies of version 1 are mounted (freezer)", "cgroup_no_v1=all"),
    (judge_slurm.judge_cgroups,
     replace(CGROUPS, settings={**CGROUPS.settings, "CgroupPlugin": "autodetect"}, old=("cpu",), mounted=frozenset({"v1", "v2"})),
     WELL, "mounted: v1 and v2", None),
    (judge_slurm.judge_cgroups, replace(CGROUPS, settings={"CgroupPlugin": "disabled"}), NOTE, "disabled",
     "CgroupPlugin=autodetect"),
    (judge_slurm.judge_cgroups, replace(CGROUPS, settings={**CGROUPS.settings, "ProctrackType": "proctrack/linuxproc"}),
     NOTE, "linuxproc",
     "ProctrackType=proctrack/cgroup"),
    (judge_slurm.judge_cgroups, replace(CGROUPS, settings={**CGROUPS.settings, "TaskPlugin": "task/none"}), NOTE,
     "no task/cgroup", "TaskPlugin="),
    (judge_slurm.judge_cgroups, replace(CGROUPS, settings={**CGROUPS.settings, "ConstrainRAMSpace": "no"}), NOTE,
     "kept to their memory",
     "ConstrainRAMSpace=yes"),
    (judge_slurm.judge_grace, seen.Grace(20, 30), WELL, "30 s, is longer than shutdown-grace, 20 s", None),
    (judge_slurm.judge_grace, seen.Grace(30, 30), FAILED, "KillWait is 30 s, and guests have 30 s", "KillWait=40 in slurm.conf"),
    (judge_slurm.judge_grace, seen.Grace(30, None), NOTE, "does not say", "scontrol show config"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("judge", "one", "level", "words", "mend"), CASES, ids=[f"{case[0].__name__}: {case[3]}"[6:70] for case in CASES]
)
def test_what_is_seen_is_judged(
    judge: Callable[[Any], Iterable[Finding]], one: Any, level: str, words: str, mend: str | None
) -> None:
    found = list(judge(one))
    assert [finding.level for finding in found if finding.level == level and words in finding.text] == [level], found
    finding = next(finding for finding in found if words in finding.text)
    assert (mend is None) == (finding.hint is None) and (mend or "") in (finding.hint or "")
    if level == WELL:
        assert len(found) == 1
    elif level == FAILED:
        assert WELL not in {finding.level for finding in found}


def test_one_fault_of_the_plugin_is_told_at_a_time() -> None:
    """The first of them explains the others: a node without slurmd has no plugin loaded."""
    assert (
        len(
            list(
                judge_slurm.judge_plugin(
                    replace(PLUGIN, named=None, built=None, slurmd=None, version=None, loaded=False)
                )
            )
        )
        == 1
    )


def test_a_silent_slurmctld_is_told_once() -> None:
    assert [one.level for one in judge_slurm.judge_cgroups(seen.Cgroups({}, frozenset({"v2"})))] == [WELL]
