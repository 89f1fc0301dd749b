"""What is seen of a node: plain values. The read_ modules of this room make them, the judges need no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pcocc_runtime.documents.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Plugin:
    """Slurm's plugin: where `config` (plugstack.conf) `named` it, the release it was `built` for, its pcocc `version`.

    `slurmd` is the release of the slurmd that runs, None for none; `loaded`: that one has the plugin open,
    and, where it is `replaced`, another file than is there now. `trouble` is why the file cannot be opened.
    `expected` is where the file of this installation is, `runtime` the version of pcocc that looks.
    """

    config: str
    named: str | None
    expected: str
    runtime: str
    built: tuple[int, int] | None = None
    version: str | None = None
    slurmd: tuple[int, int] | None = None
    loaded: bool = False
    replaced: bool = False
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Devices:
    """What a node has for VMs: `count` functions, of which some have `faults` (what is wrong, what mends it).

    `named`: the site gives devices to VMs at all; `missing` says of which the node has none.
    """

    named: bool
    count: int = 0
    faults: tuple[tuple[str, str | None], ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Versions:
    """What runs here, as texts that other nodes are compared with; `qemu_trouble` is why QEMU's is not known."""

    runtime: str
    slurm: str
    qemu: str
    qemu_trouble: str = ""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that root's helper or a VM starts, its packages on Debian and RHEL, and whether it is there."""

    name: str
    deb: str
    rpm: str
    found: bool
    needed: bool = True


@dataclass(frozen=True, slots=True)
class Programs:
    """All of them; `dnf`: packages are installed by dnf(8) here, else by apt-get(8)."""

    every: tuple[Program, ...]
    dnf: bool = False


@dataclass(frozen=True, slots=True)
class DeviceFile:
    """A device in /dev: its mode bits, None when it is not there, its group, and why root cannot open it."""

    path: str
    mode: int | None
    group: str = "root"
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Vhost:
    """/dev/vhost-net, and whether the site's `vhost-net` allows its use."""

    device: DeviceFile
    allowed: bool


@dataclass(frozen=True, slots=True)
class Accelerator:
    """How this node runs guests: its setting `accel`, what came of trying, and when (seconds since 1970)."""

    setting: str
    device: DeviceFile
    qemu: tuple[int, int] | None
    verdict: Verdict | None
    now: int


@dataclass(frozen=True, slots=True)
class UserNamespaces:
    """Whether an ordinary user can make one and mount in it (`trouble` why not), and the sysctls that may forbid it."""

    trouble: str
    sysctls: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Names:
    """The names of all nodes, as slurmctld has them, and those that this node finds no IPv4 address for."""

    every: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Walls:
    """What forwards packets here, and what keeps them in: names of nft's tables as FAMILY NAME.

    `forwards`: net.ipv4.ip_forward is 1; `open` are interfaces that forward by themselves. `jobs` are those
    that have VMs here. `unguarded`: rules of routing that keep what is forwarded from tunnels are missing.
    `trouble` is why nft or ip says nothing, `mend` the command that puts back what always stands.
    """

    forwards: bool
    open: tuple[str, ...]
    tables: tuple[str, ...]
    jobs: tuple[int, ...]
    mend: str
    unguarded: bool = False
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of the site's that drops what none of its rules takes: `place` is FAMILY TABLE NAME.

    `ours`: it has rules that let our packets by. `by_rule`: its last rule drops, and not its policy.
    """

    place: str
    hook: str
    ours: bool
    by_rule: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """The site's own chains that drop what no rule of theirs takes; `trouble` is why nft does not list them.

    `legacy`: tables of IPv4 that iptables-legacy has made, which nft does not list.
    """

    chains: tuple[Chain, ...]
    trouble: str = ""
    legacy: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scratch:
    """The directory of VMs' disks: owner, mode bits (None: not there), file system, bytes free and in all."""

    path: str
    owner: int | None
    mode: int
    filesystem: str
    writable: bool
    free: int
    size: int


@dataclass(frozen=True, slots=True)
class Cache:
    """The image cache, None where the site has none: only its owner can write to it, and its service answers."""

    directory: str | None
    trusted: bool = False
    answers: bool = False


@dataclass(frozen=True, slots=True)
class Cgroups:
    """How Slurm confines tasks, and which hierarchies are mounted below /sys/fs/cgroup: v1, v2, or both.

    `old` are all of version 1, wherever they are mounted; `unified`: version 2 is at /sys/fs/cgroup itself.
    """

    settings: Mapping[str, str]
    mounted: frozenset[str]
    old: tuple[str, ...] = ()
    unified: bool = False


@dataclass(frozen=True, slots=True)
class Grace:
    """Seconds that a guest has to power off, and those that Slurm waits before it kills, None when it does not say."""

    shutdown_grace: int
    kill_wait: int | None


@dataclass(frozen=True, slots=True)
class Clock:
    """How many seconds this node's clock is ahead of slurmctld's, None when that is not known.

    `kept`: something keeps it right.
    """

    ahead: float | None
    kept: bool


@dataclass(frozen=True, slots=True)
class Configuration:
    """What is wrong in /etc/pcocc, a sentence each with what helps, and a digest to compare nodes by."""

    problems: tuple[tuple[str, str | None], ...]
    digest: str
