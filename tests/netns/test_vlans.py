"""The tests in vlans.py, on Debian's kernel in a VM: the one that runs here may have been built without VLAN filtering."""

import subprocess
import sys
from pathlib import Path

from tests.netns.fabric import ROOT
from tests.qemu.conftest import build

QEMU = (
    "nice", "-n", "19", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "768", "-smp", "2", "-nodefaults", "-no-user-config",
    "-display", "none", "-no-reboot", "-serial", "stdio", "-virtfs",
    "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
)  # fmt: skip


def test_vlans_of_a_sites_bridge(tmp_path: Path) -> None:
    guest, script = ROOT / "build/guest", tmp_path / "run"
    build("testbed", guest)
    words = f"{sys.executable} -m pytest -q -p no:cacheprovider --color=no --durations=12 tests/netns/vlans.py"
    script.write_text(f"export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PYTHONDONTWRITEBYTECODE=1\ncd {ROOT} && exec {words}\n")
    argv = [*QEMU, "-kernel", f"{guest}/testbed-vmlinuz", "-initrd", f"{guest}/testbed-initrd", "-append", f"console=ttyS0 quiet run={script}"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=400, check=False)
    assert "status 0\r\n" in done.stdout or "status 0\n" in done.stdout, done.stdout + done.stderr
    print(done.stdout)
    assert "5 passed" in done.stdout
