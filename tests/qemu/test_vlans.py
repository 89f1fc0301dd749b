"""VLANs on a bridge of the site, in a guest with Debian's kernel: the host's own may be unable to filter them."""

import os
import subprocess
import sys
from pathlib import Path

from tests.qemu.vm import APPEND, PROMPT, ROOT

SECONDS = "240"  # with both CPUs taken by others
# the guest sees the host's files, and writes to memory only
SCRIPT = """
mkdir /mnt/low /mnt/over /mnt/root
mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=524288,ro host /mnt/low
mount -t tmpfs over /mnt/over
mkdir /mnt/over/up /mnt/over/work
mount -t overlay -o lowerdir=/mnt/low,upperdir=/mnt/over/up,workdir=/mnt/over/work root /mnt/root
cd /mnt/root
mkdir -p etc/pcocc
for name in dev proc sys; do mount --rbind /$name $name; done
mount -t tmpfs run run
ip link set lo up
mount --move . /  # setns takes a process to the root of a mount namespace, out of a chroot
chroot . /bin/sh -c 'cd "$0" && PYTHONDONTWRITEBYTECODE=1 PATH=/usr/sbin:/usr/bin:/sbin:/bin exec "$@"' {root} \\
  {python} -m pytest -q --color=no -p no:cacheprovider tests/netns/vlans.py
echo "exit ""code $?"
poweroff -f
"""


def test_a_port_is_in_its_vlans_and_in_no_other_with_debians_kernel(guest: Path) -> None:
    argv = [
        "qemu-system-x86_64", "-nodefaults", "-no-reboot", "-display", "none", "-machine", "q35", "-accel", "tcg",
        "-cpu", "max",
    ]
    argv += [
        "-m", "1024", "-serial", "stdio", "-kernel", str(guest / "vmlinux"), "-initrd", str(guest / "initrd-net"),
        "-append", APPEND,
    ]
    argv += ["-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"]
    argv += ["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]
    script = SCRIPT.format(root=ROOT, python=sys.executable)
    log = b""
    with subprocess.Popen(
        ["timeout", SECONDS, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as qemu:
        assert qemu.stdin and qemu.stdout
        while PROMPT not in log and (more := os.read(qemu.stdout.fileno(), 65536)):  # nobody reads what it prints before
            log += more
        log += qemu.communicate(script.encode())[0]
    text = log.decode(errors="replace").replace("\r", "")
    assert "exit code 0\n" in text, text
