"""A simulated InfiniBand fabric with a real subnet manager: ibsim and opensm, in a network namespace of their own.

Each VM's function is represented by a device with one port, because ibsim does not know the virtual ports of today's devices.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

from tests.waiting import limit, wait_closely

_LIBRARY = "/usr/lib/x86_64-linux-gnu/umad2sim/libumad2sim.so"
SM = "sm"
HOSTS = ("node1", "node2")
_DEVICE = 'caguid={guid:#x}\nHca\t1 "{name}"\n[1]\t"switch"[{port}]\n\n'


class Subnet:
    """The fabric of a subnet manager, two hosts and some VMs, given with their devices' GUIDs; `opensm` is to be called first."""

    def __init__(self, directory: Path, vms: dict[str, int]) -> None:
        self.directory, self._file, self._log = (
            directory,
            directory / "partitions.conf",
            directory / "opensm.log",
        )
        devices = {
            SM: 0x100000,
            **{name: 0x101000 + 0x1000 * place for place, name in enumerate(HOSTS)},
            **vms,
        }
        ports = "".join(f'[{port}]\t"{name}"[1]\n' for port, name in enumerate(devices, 1))
        text = f'switchguid=0x5000\nSwitch\t36 "switch"\n{ports}\n'
        text += "".join(
            _DEVICE.format(guid=guid, name=name, port=port)
            for port, (name, guid) in enumerate(devices.items(), 1)
        )
        (directory / "net").write_text(text)
        self._guids = {name: guid + 1 for name, guid in devices.items()}  # as ibsim numbers a device's ports
        (directory / "opensm.conf").write_text("force_log_flush TRUE\nlog_flags 0x03\n")
        shell = "ip link set lo up; sysctl -qw net.unix.max_dgram_qlen=4096; exec ibsim -s net"
        self._simulator = self._start(["unshare", "--net", "sh", "-c", shell], {}, stdin=subprocess.PIPE)
        self._processes = [self._simulator]
        self._proc = Path(f"/proc/{self._simulator.pid}")
        wait_closely(self._is_up, "ibsim has no socket")

    def _is_up(self) -> bool:
        apart = os.readlink(self._proc / "ns/net") != os.readlink("/proc/self/ns/net")
        return apart and "@" in (self._proc / "net/unix").read_text()

    def _start(
        self, argv: list[str], environment: dict[str, str], stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        with (self.directory / "output").open("ab") as output:
            return subprocess.Popen(
                argv, stdin=stdin, stdout=output, stderr=output, cwd=self.directory, env={**os.environ, **environment}
            )  # fmt: skip

    def _place(self, host: str) -> dict[str, str]:
        folder = str(self.directory)
        return {"SIM_HOST": host, "LD_PRELOAD": _LIBRARY, "OSM_CACHE_DIR": folder, "OSM_TMP_DIR": folder}

    def opensm(self, partitions: str) -> float:
        """Start the subnet manager with a file of partitions; return how many seconds it took until all ports had their
        tables."""
        self._file.write_text(partitions)
        inside = [
            "nsenter",
            f"--net={self._proc}/ns/net",
            "opensm",
            "-g",
            f"{self._guids[SM]:#x}",
            "-P",
            self._file,
        ]
        begin = time.monotonic()
        argv = [*map(str, inside), "-f", str(self._log), "-F", "opensm.conf", "-s", "2", "-e"]
        self._processes.append(self._start(argv, self._place(SM)))
        wait_closely(
            lambda: self._log.exists() and "SUBNET UP" in self._log.read_text(errors="replace"), self.log
        )
        return time.monotonic() - begin

    def read_cpu(self) -> float:
        """Return how many seconds of CPU the subnet manager has used."""
        fields = Path(f"/proc/{self._processes[-1].pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        """Return what the subnet manager has written."""
        return (
            self._log.read_text(errors="replace")
            if self._log.exists()
            else (self.directory / "output").read_text()
        )

    def close(self) -> None:
        """End all of its programs."""
        for process in reversed(self._processes):
            process.kill()
            process.communicate()

    def _ask(self, host: str, *argv: str) -> subprocess.CompletedProcess[str]:
        inside = ["nsenter", f"--net={self._proc}/ns/net", *argv]
        environment = {**os.environ, **self._place(host)}
        return subprocess.run(
            inside, capture_output=True, text=True, env=environment, timeout=limit(10), check=False
        )

    def keys(self, name: str) -> list[int]:
        """Return the table of a port, in order, with the bit of full members."""
        shown = self._ask(SM, "smpquery", "-G", "pkeys", f"{self._guids[name]:#x}", "1").stdout
        return [key for key in (int(one, 16) for one in re.findall(r"0x[0-9a-f]{4}", shown)) if key]

    def reaches(self, one: str, other: str) -> bool:
        """Tell whether the subnet manager gives a port a path to another one: it does so between ports that share a key."""
        done = self._ask(one, "smpquery", "-G", "nodedesc", f"{self._guids[other]:#x}")
        assert done.returncode == 0 or "can't resolve destination port" in done.stdout, done
        return done.returncode == 0 and done.stdout.rstrip().endswith(f".{other}")

    def give(self, name: str, guid: int) -> None:
        """Take a device from the fabric, and give it back with other GUIDs, as a function's are changed under it."""
        self.take(name)
        self._guids[name] = guid + 1
        self._command(f'Guid "{name}" {guid:#x}')
        self._command(f'Link "{name}"[1] "switch"[{[*self._guids].index(name) + 1}]')

    def take(self, name: str) -> None:
        """Take a device from the fabric."""
        self._command(f'Unlink "{name}"[1]')

    def _command(self, text: str) -> None:
        """Give ibsim a command: it answers with a prompt, and reads the next command only after that."""
        output = self.directory / "output"
        before = output.stat().st_size
        assert self._simulator.stdin
        self._simulator.stdin.write(f"{text}\n".encode())
        self._simulator.stdin.flush()
        wait_closely(lambda: b"sim>" in output.read_bytes()[before:], text)
