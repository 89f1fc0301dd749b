"""A node with virtual functions for root's helper: /sys is made up, and ip(8) notes what it cannot do here."""

import subprocess
from pathlib import Path

from tests.fake_functions import write_functions
from tests.netns.fabric import HELPER, Node

IP = """#!/bin/sh
echo >>{folder}/calls
case $*/ in
*-batch\\ -/)
  cat >{folder}/text
  grep ' vf ' {folder}/text >>{folder}/said
  [ ! -e {folder}/refuse ] || ! grep -q ' vf ' {folder}/text || exit 1
  grep -v ' vf ' {folder}/text | exec {real} "$@" ;;
*) exec {real} "$@" ;;
esac
"""
FILES = Path("/dev/vfio")


class NodeWithFunctions(Node):
    """A node with the device mlx5_0, some functions and their files."""

    def __init__(self, directory: Path, count: int = 4) -> None:
        super().__init__(directory, "one")
        self.folder, self.sys = directory / "ip", directory / "sys"
        self.folder.mkdir()
        self.made = not FILES.exists()  # of all namespaces, since /dev is the host's
        FILES.mkdir(exist_ok=True)
        write_functions(self.sys, count)
        real = self.run("sh", "-c", "command -v ip").stdout.strip()
        (self.folder / "ip").write_text(IP.format(folder=self.folder, real=real))
        (self.folder / "ip").chmod(0o755)
        groups = " ".join(str(21 + number) for number in range(count))
        script = f"mount --rbind {self.sys} /sys && mount -t tmpfs none /dev/vfio && cd /dev/vfio && touch {groups}"
        self.run("sh", "-ec", script)
        self.configure({"lan": "{}"}, {"hpc": ["lan", "ib"]})
        with (self.confdir / "networks.yaml").open("a") as file:
            file.write(
                "ib: {type: infiniband, settings: {host-device: mlx5_0, min-pkey: '0x2000', max-pkey: '0x2003'}}\n"
            )

    def ask(self, verb: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run root's helper with the ip(8) that takes notes."""
        path = f"{self.folder}:/usr/sbin:/usr/bin:/sbin:/bin"
        return self.run("env", f"PATH={path}", *HELPER, verb, text=text, check=False)

    def said(self) -> list[str]:
        """Return what ip(8) was told of functions since the last time."""
        path = self.folder / "said"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def owners(self) -> list[int]:
        """Return who has the files of the first four functions."""
        return [
            int(one)
            for one in self.run(
                "stat", "-c", "%u", *(f"/dev/vfio/{group}" for group in range(21, 25))
            ).stdout.split()
        ]
