"""VMs started by the real launcher as an ordinary user, in a mount namespace with a /run/pcocc of its own; no Slurm, no
network."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pcocc_runtime.documents import wire
from pcocc_runtime.documents.boot import Boot, Keys, encode_boot
from pcocc_runtime.documents.cluster import Cluster, Group, encode_cluster
from pcocc_runtime.documents.hardware import Allocation
from pcocc_runtime.documents.image_cache import ImageCache
from pcocc_runtime.documents.node import encode_node
from pcocc_runtime.networks.kinds import EthernetNetwork
from pcocc_runtime.site.site import Site
from tests.fake_node import make_facts
from tests.waiting import limit

ROOT = Path(__file__).resolve().parents[2]
KEEPS_IMAGES = "games"  # in the part of pcocc-cache
USER = "daemon"  # uid and gid 1 on every Debian
APPEND = "console=ttyS0 quiet mitigations=off nokaslr tsc=reliable no_timer_check lpj=4000000 panic=-1"
PROMPT = b"guest# "
SHELL = b"/ # "  # the default prompt of the shell
BOOT_SECONDS = 90
SOURCE, DATA, GUEST = "/run/pcocc/source", "/run/pcocc/data", "/run/pcocc/guest"
_SETUP = f"""
set -e
mkdir -p /run/pcocc
mount -t tmpfs -o mode=755 none /run/pcocc
mkdir -p {SOURCE} {DATA} {GUEST} /run/pcocc/packages /run/pcocc/$SLURM_JOB_ID
mount --bind "$1" {SOURCE}
mount --bind "$2" {DATA}
mount --bind "$3" {GUEST}
mount --bind "$4" /run/pcocc/packages
[ -z "$SCRATCH" ] || mount -t tmpfs -o size=$SCRATCH,uid=1,gid=1 none {DATA}/scratch/pcocc/$SLURM_JOB_ID
if [ -n "$CACHE" ]; then
  mkdir /run/pcocc/etc
  printf '%s\n' "$CACHE" >/run/pcocc/etc/pcocc.yaml
  setpriv --pdeathsig KILL systemd-socket-activate --accept --inetd -l /run/pcocc/cache.socket \\
    setpriv --reuid={KEEPS_IMAGES} --regid={KEEPS_IMAGES} --clear-groups \\
    /usr/bin/python3 -IS {SOURCE}/tests/qemu/launcher.py cache \\
    >/run/pcocc/journal 2>&1 &
  echo $! >{DATA}/listener$SLURM_JOB_ID
  while ! [ -S /run/pcocc/cache.socket ]; do sleep 0.01; done
  chmod 666 /run/pcocc/cache.socket
fi
printf %s "$5" >/run/pcocc/$SLURM_JOB_ID/node.json
chown -R {USER}: /run/pcocc/$SLURM_JOB_ID
cd /
exec setpriv --reuid={USER} --regid={USER} --init-groups /usr/bin/python3 -IS {SOURCE}/tests/qemu/launcher.py launch
"""


class Vm:
    """One VM: its QEMU is our child, its console a shell."""

    def __init__(self, data: Path, guest: Path, group: Group, job: int = 7, grace: int = 20, scratch_size: str = "",
                 cache: ImageCache | None = None, served: bool = True, part: Allocation | None = None,
                 restart: str | None = None, rank: int = 0, taps: Sequence[Sequence[int]] = (),
                 kvm: int | None = None) -> None:
        """Start it, by KVM if that is handed over, open; `taps` are queues of interfaces, on networks of ranks 0 to `rank`."""
        self.job, self.rank = job, rank
        if group.image is None and group.kernel is None:
            kernel = "vmlinuz" if group.firmware == "uefi" else "vmlinux"  # UEFI starts PE files only
            group = replace(group, kernel=f"{GUEST}/{kernel}", initrd=f"{GUEST}/initrd", append=APPEND)
        data.chmod(0o755)
        scratch = data / f"scratch/pcocc/{job}"
        scratch.mkdir(parents=True, exist_ok=True)
        os.chown(scratch, 1, 1)
        site = Site(scratch=f"{DATA}/scratch", boot_timeout=600, shutdown_grace=grace, image_cache=cache)
        lans = [EthernetNetwork(f"lan{number}", layer="L2") for number in range(len(taps))]
        sets, ranks = {"bare": tuple(lan.name for lan in lans)}, tuple(range(rank + 1))
        accel = "tcg" if kvm is None else "kvm"
        node = make_facts(sets, {"bare": len(ranks)}, lans, layout={"here": ranks}, job=job, site=site, accel=accel)
        keys = Keys("key", "key", "key", "key")
        environ = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SLURM_JOB_ID": str(job), "SLURM_PROCID": str(rank),
            "SLURM_CPUS_PER_TASK": str(max(group.cpus, 1)),
            wire.ENV_TAP_FDS: ",".join(":".join(map(str, queues)) for queues in taps), wire.ENV_TASK_MEMORY: "512",
            "SLURMD_NODENAME": "here", "SCRATCH": scratch_size,
            "PRETENDED": json.dumps(part) if part else "",
            "CACHE": f"image-cache: {{size: {cache.size >> 20}M, directory: {cache.directory}}}" if cache and served else "",
            wire.ENV_BOOT: encode_boot(Boot(encode_cluster(Cluster((group,), restart)), keys)),
        } | ({} if kvm is None else {wire.ENV_KVM_FD: str(kvm)})  # fmt: skip
        packages = sysconfig.get_paths()["purelib"]
        argv = ["unshare", "--mount", "sh", "-c", _SETUP, "sh", str(ROOT), str(data), str(guest), packages]
        argv.append(encode_node(node).decode())
        self.log = data / f"log{job}"
        with self.log.open("w") as log:
            handed = [*(fd for queues in taps for fd in queues), *([] if kvm is None else [kvm])]
            self.process = subprocess.Popen(
                argv, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=handed
            )
        self.console: socket.socket | None = None

    @property
    def directory(self) -> Path:
        """Return the VM's directory as seen from outside its namespace."""
        return Path(f"/proc/{self.process.pid}/root/run/pcocc/{self.job}/vm{self.rank}")

    def said(self) -> str:
        """Return all that launcher, keeper and QEMU wrote."""
        return self.log.read_text()

    def events(self) -> list[dict[str, object]]:
        """Return what the keeper told."""
        return [json.loads(line[7:]) for line in self.said().splitlines() if line.startswith("@pcocc ")]

    def boot(self, ready: bytes = PROMPT) -> Vm:
        """Wait for the prompt of the guest's shell, or for another word that the guest prints before it."""
        self.connect()
        heard = self._read_to(ready, BOOT_SECONDS)
        if ready != PROMPT:
            if SHELL not in heard.encode().partition(ready)[2]:
                self._read_to(SHELL, BOOT_SECONDS)  # it forgets what was typed before that
            self.run("dmesg -n 1; stty -echo; PS1='gue''st# '")  # nothing comes after the prompt; its echo must not look like it
        return self

    def connect(self) -> None:
        """Connect to the console, once."""
        self._connect("console", BOOT_SECONDS)

    def run(self, command: str, seconds: float = 30) -> str:
        """Run a command in the guest's shell and return what it printed."""
        assert self.console is not None
        self.console.sendall(command.encode() + b"\n")
        return self.read(seconds)

    def read(self, seconds: float = 30) -> str:
        """Return what a command that was typed has printed, when its shell asks for the next."""
        return self._read_to(PROMPT, seconds)

    def wait(self, seconds: float = 30) -> int:
        """Wait for QEMU's end."""
        return self.process.wait(limit(seconds))

    def terminate(self) -> None:
        """Do what Slurm does at the end of a job."""
        self.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End what still runs."""
        if self.console is not None:
            self.console.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        listener = self.log.with_name(f"listener{self.job}")
        if listener.exists():  # it is root's: a parent that has become the user cannot signal it
            os.kill(int(listener.read_text()), signal.SIGKILL)
            listener.unlink()

    def _connect(self, name: str, seconds: float) -> None:
        deadline = time.monotonic() + limit(seconds)
        while self.console is None:
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            try:
                console = socket.socket(socket.AF_UNIX)
                console.connect(str(self.directory / name))
                self.console = console
            except OSError:
                console.close()
                time.sleep(0.05)  # QEMU does not announce its sockets

    def threads(self) -> str:
        """Return what QEMU's threads are at: name, state, CPU time in ticks, and where they wait in the kernel."""
        lines = []
        for task in sorted(Path(f"/proc/{self.process.pid}/task").iterdir()):
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            name, place = (task / "comm").read_text().strip(), (task / "wchan").read_text()
            lines.append(f"{name}: {fields[0]}, {fields[11]} and {fields[12]} ticks, {place}")
        return "\n".join(lines)

    def _read_to(self, end: bytes, seconds: float) -> str:
        assert self.console is not None
        self.console.settimeout(limit(seconds))
        data = b""
        while end not in data if end != PROMPT else not data.endswith(end):
            try:
                more = self.console.recv(65536)
            except TimeoutError:
                raise AssertionError(f"nothing more after {limit(seconds):.0f} s: {data!r}\n{self.threads()}") from None
            assert more, data.decode(errors="replace") + self.said()
            data = (data + more).replace(b"\x1b[6n", b"")  # busybox asks terminals for their width
        return data.removesuffix(end).decode(errors="replace").replace("\r", "")


StartVm = Callable[..., Vm]  # what the fixture `start` gives
