"""The root directory of the machine: a compute node's packages, and nothing to compile with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tests.releaselib.outside import read_apt_options, read_mirror
from tests.releaselib.root import NEW, ensure_made

from .place import Place

SUITE = "trixie"
# virtiofsd is what our package recommends; the last two lines are what our packages depend on, which tests/packaging looks
# at: the machine reaches no mirror
_PACKAGES = """
systemd-sysv udev dbus openssh-server iproute2 iputils-ping procps psmisc pciutils util-linux-extra numactl kmod e2fsprogs netbase
linux-image-amd64 nvme-cli busybox-static strace xz-utils zstd
munge slurmctld slurmd slurm-client slurm-wlm-basic-plugins
virtiofsd
qemu-system-x86 qemu-utils nftables dnsmasq-base openssh-client
python3 python3-yaml python3-pyroute2 python3-pycdlib python3-dnspython python3-cffi-backend libpython3.13
"""
# of what nothing here reads; hardware's names are compiled into a database when they are there
_EXCLUDED = ("share/man", "share/locale", "share/doc", "lib/udev/hwdb.d", *(f"lib/modules/*/kernel/{name}" for name in (
    "sound", "drivers/gpu", "drivers/media", "drivers/net/wireless")))  # fmt: skip


def ensure_root(place: Place, fresh: bool) -> bool:
    """Make the root unless there is one of the same ingredients; return whether it was made. RootError when it cannot be had."""
    argv = render_argv(read_mirror(), read_apt_options())
    place.root.path.mkdir(exist_ok=True)
    return ensure_made(place.root.path.name, place.root, argv, hashlib.sha256("\0".join(argv).encode()).hexdigest(), fresh)


def render_argv(mirror: str, apt_options: Sequence[str]) -> list[str]:
    """Return the command that makes the root as `new` in the current directory."""
    aptopts = ['APT::Install-Recommends "false"', 'Acquire::Languages "none"', *apt_options]
    excluded = [f"path-exclude=/usr/{name}/*" for name in _EXCLUDED]
    return [
        "env",
        "INITRD=No",  # of Debian's: the machine starts from one of three modules
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        *(f"--aptopt={option}" for option in aptopts),
        *(f"--dpkgopt={option}" for option in (*excluded, "force-unsafe-io")),
        f"--include={','.join(_PACKAGES.split())}",
        SUITE,
        NEW,
        f"deb {mirror} {SUITE} main",
    ]
