"""A machine with a systemd of its own: it has this machine's files, changes to which stay in memory, and its own
processes and network.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.waiting import limit

PREFIX = "/opt/pcocc"
_SETUP = f"""
set -e
mount --make-rprivate /
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
cd /mnt/root
for place in run tmp home; do mount -t tmpfs -o mode=755 none $place; done
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs none sys/fs/cgroup
mkdir sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
mount -t tmpfs -o mode=755 none dev
for name in null zero full random urandom tty; do : >dev/$name; mount --bind /dev/$name dev/$name; done
mkdir dev/shm dev/pts
ln -s pts/ptmx dev/ptmx
pivot_root . mnt
umount -l /mnt
grep -q ' / / [^-]* - overlay ' /proc/self/mountinfo  # never below this on the real files
rm -rf /usr/lib/systemd/system/*.wants /etc/systemd/system
mkdir /etc/systemd/system
ln -s {PREFIX}/lib/systemd/system/pcocc-* /etc/systemd/system/
printf '[Unit]\\nWants=pcocc-cache.socket\\n' >/etc/systemd/system/only.target
mkdir -p /etc/pcocc
printf 'image-cache: {{size: 1G}}\\n' >/etc/pcocc/pcocc.yaml
systemd-sysusers {PREFIX}/lib/sysusers.d/pcocc-cache.conf
exec env -i container=tests PATH=$PATH /lib/systemd/systemd --system --unit=only.target --log-target=console --show-status=0
"""


class Machine:
    """It starts with the units that we install enabled, and no others; it ends with the block."""

    def __init__(self, log: Path) -> None:
        self.log = log
        argv = [
            "setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc",
            "--cgroup",
        ]
        with log.open("w") as stream:
            self.process = subprocess.Popen([*argv, "sh", "-c", _SETUP], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)

    def __enter__(self) -> Machine:
        deadline = time.monotonic() + limit(60)
        while not (self.init and self.path("/run/pcocc/cache.socket").exists()):
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)  # systemd tells nobody
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def init(self) -> int | None:
        """Return its first process as this machine numbers it."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def path(self, path: str) -> Path:
        """Return one of its paths as it is seen from this machine."""
        return Path(f"/proc/{self.init}/root{path}")

    def run(self, *argv: str, uid: int = 0, groups: Sequence[int] = ()) -> subprocess.CompletedProcess[str]:
        """Run a program there as a user."""
        user = [
            "setpriv", f"--reuid={uid}", f"--regid={uid}",
            f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups",
        ]
        inside = ["nsenter", f"--target={self.init}", "--mount", "--pid", "--root", "--wd=/", *(user if uid else [])]
        return subprocess.run(
            [*inside, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit(60), check=False
        )
