"""The tests in vlans.py, on Debian's kernel in a VM: the one that runs here may have been built without VLAN filtering."""

import subprocess
import sys
from pathlib import Path

from tests.netns.fabric import ROOT
from tests.qemu.conftest import build

QEMU = (
    "nice", "-n", "19", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "768", "-smp", "1", "-nodefaults", "-no-user-config",
    "-display", "none", "-no-reboot", "-serial", "stdio", "-virtfs",
    "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
)  # fmt: skip


def test_vlans_of_a_sites_bridge(tmp_path: Path) -> None:
    guest, script = ROOT / "build/guest", tmp_path / "run"
    build("testbed", guest)
    words = f"{sys.executable} -m pytest -q -p no:cacheprovider --color=no tests/netns/vlans.py"
    script.write_text(f"export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PYTHONDONTWRITEBYTECODE=1\ncd {ROOT} && exec {words}\n")
    argv = [*QEMU, "-kernel", f"{guest}/testbed-vmlinuz", "-initrd", f"{guest}/testbed-initrd", "-append", f"console=ttyS0 quiet run={script}"]
    said = []
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace") as qemu:
        assert qemu.stdout
        for line in qemu.stdout:
            said.append(line.rstrip())
            if line.startswith("status "):
                break
        qemu.kill()
    assert said[-1] == "status 0" and any(line.startswith("5 passed") for line in said), "\n".join(said)
