"""Root's helper gives virtual functions to VMs and takes them back. /sys is made up, and ip(8) is replaced by a script that
notes what it is told.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime.documents.node import FunctionFacts
from pcocc_runtime.documents.wire import HELPER_CHARGE
from tests.fake_functions import write_card, write_functions
from tests.netns.fabric import HELPER, Node, release, request

IP = """#!/bin/sh
case $*/ in
*-batch\\ -/)
  cat >{folder}/text
  grep ' vf ' {folder}/text >>{folder}/said
  [ ! -e {folder}/refuse ] || ! grep -q ' vf ' {folder}/text || exit 1
  grep -v ' vf ' {folder}/text | exec {real} "$@" ;;
*) exec {real} "$@" ;;
esac
"""
_FILES = Path("/dev/vfio")
PLACE = "account a\npartition p\nqos \nlicenses pkey2001:1\ngres one nic:2(IDX:1-2)\nsets"
NO_GUID = ":".join(["ff"] * 8)


class NodeWithFunctions(Node):
    """A node with the device mlx5_0, four functions and their files."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "one")
        self.folder, self.sys = directory / "ip", directory / "sys"
        self.folder.mkdir()
        self.made = not _FILES.exists()  # of all namespaces, since /dev is the host's
        _FILES.mkdir(exist_ok=True)
        write_functions(self.sys, 4)
        real = self.run("sh", "-c", "command -v ip").stdout.strip()
        (self.folder / "ip").write_text(IP.format(folder=self.folder, real=real))
        (self.folder / "ip").chmod(0o755)
        script = f"mount --rbind {self.sys} /sys && mount -t tmpfs none /dev/vfio && cd /dev/vfio && touch 21 22 23 24"
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
        """Return who owns the functions' files."""
        return [
            int(one)
            for one in self.run(
                "stat", "-c", "%u", *(f"/dev/vfio/{group}" for group in range(21, 25))
            ).stdout.split()
        ]


@pytest.fixture
def node() -> Iterator[NodeWithFunctions]:
    with tempfile.TemporaryDirectory(dir="/root") as directory:
        Path(directory).chmod(0o755)
        found = NodeWithFunctions(Path(directory))
        try:
            yield found
        finally:
            found.close()
            if found.made:
                _FILES.rmdir()


@pytest.fixture
def stepd() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            yield process
        finally:
            process.kill()


def told(job: int, pid: int) -> str:
    return request(job, 0, pid, sets="hpc:2", nodes=("one",)).replace("sets", PLACE)


def joining(function: int, rank: int) -> list[str]:
    guid = f"c2:cc:20:01:00:00:{rank:02x}"
    words = ["state disable", f"node_guid {guid}:00", f"port_guid {guid}:01", "state auto"]
    return [f"link set dev ib0 vf {function} {what}" for what in words]


def leaving(*functions: int) -> list[str]:
    words = ["state disable", f"node_guid {NO_GUID}", f"port_guid {NO_GUID}"]
    return [f"link set dev ib0 vf {function} {what}" for function in functions for what in words]


def test_vms_get_their_functions_and_release_takes_them_back(
    node: NodeWithFunctions, stepd: "subprocess.Popen[bytes]"
) -> None:
    text = told(12, stepd.pid)
    asked = node.ask("setup", text.replace(PLACE, "sets"))
    assert asked.returncode == HELPER_CHARGE and node.said() == []
    done = node.ask("setup", text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert node.said() == [*joining(1, 0), *joining(2, 1)]
    uid = int(text.partition("\nuid ")[2].partition("\n")[0])
    assert node.owners() == [0, uid, uid, 0]
    assert node.facts(12).functions == {
        rank: (FunctionFacts("ib", f"0000:81:00.{rank + 2}", 1, 0x2001, f"c2cc:2001:0000:0{rank}01"),)
        for rank in (0, 1)
    }
    assert done.stdout.splitlines()[:2] == ["tap 0 tap0n0", "tap 1 tap1n0"]
    assert node.ask("release", release(12)).returncode == 0
    assert node.said() == leaving(1, 2) and node.owners() == [0] * 4 and node.leftovers() == ""


def test_devices_of_pcocc_yaml_are_given_and_taken_back(
    node: NodeWithFunctions, stepd: "subprocess.Popen[bytes]"
) -> None:
    for bus, group in ((0x3B, 40), (0xAF, 41), (0x5E, 42)):
        write_card(node.sys, f"0000:{bus:02x}:00.0", "144d:a80a" if group == 42 else "10de:20b2", group)
    node.run("touch", *(f"/dev/vfio/{group}" for group in (40, 41, 42)))
    with (node.confdir / "pcocc.yaml").open("a") as file:
        file.write("devices: {'gpu:a100': {ids: ['10de:20b2']}, nvme: {addresses: ['5e:00.0']}}\n")
    with (node.confdir / "resources.yaml").open("a") as file:
        file.write("ai: {networks: [lan], devices: ['gpu:a100']}\n")
    text = request(12, 0, stepd.pid, sets="ai:1,ai:1", nodes=("one",)).replace("ai:1,ai:1", "ai:1,ai:1:nvme::1")
    place = PLACE.replace("nic:2(IDX:1-2)", "gpu:a100:2(IDX:0-1),nvme:1(IDX:0)")
    assert node.ask("setup", text).returncode == HELPER_CHARGE
    done = node.ask("setup", text.replace("sets", place))
    assert done.returncode == 0, done.stdout + done.stderr
    gpus = [FunctionFacts("gpu:a100", f"0000:{bus}:00.0", 0) for bus in ("3b", "af")]
    assert node.facts(12).functions == {0: (gpus[0],), 1: (gpus[1], FunctionFacts("nvme", "0000:5e:00.0", 0))}
    owners = ("stat", "-c", "%u", *(f"/dev/vfio/{group}" for group in (40, 41, 42)))
    uid = text.partition("\nuid ")[2].partition("\n")[0]
    assert node.run(*owners).stdout.split() == [uid] * 3 and node.owners() == [0] * 4
    assert node.ask("release", release(12)).returncode == 0
    assert node.run(*owners).stdout.split() == ["0"] * 3 and node.said() == [] and node.leftovers() == ""


@pytest.mark.parametrize("verb", ["start", "setup"])
def test_what_a_killed_slurmstepd_leaves_is_taken_back(
    node: NodeWithFunctions, stepd: "subprocess.Popen[bytes]", verb: str
) -> None:
    with subprocess.Popen(["sleep", "600"]) as dead:
        assert node.ask("setup", told(11, dead.pid)).returncode == 0
        dead.kill()
    node.said()
    text = told(12, stepd.pid).replace("pkey2001", "pkey2003") if verb == "setup" else ""
    done = node.ask(verb, text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert node.said()[:6] == leaving(1, 2)
    if verb == "setup":
        assert node.ask("release", release(12)).returncode == 0
    assert node.owners() == [0] * 4 and node.leftovers() == ""


def test_functions_that_cannot_be_taken_back_are_kept_in_mind(
    node: NodeWithFunctions, stepd: "subprocess.Popen[bytes]"
) -> None:
    assert node.ask("setup", told(12, stepd.pid)).returncode == 0
    (node.folder / "refuse").touch()
    assert node.ask("release", release(12)).returncode == 1
    assert json.loads(node.run("cat", "/run/pcocc/.state/12.devices").stdout)["devices"] == [
        "/dev/vfio/22",
        "/dev/vfio/23",
    ]
    stepd.kill()
    stepd.wait()
    (node.folder / "refuse").unlink()
    assert node.ask("start").returncode == 0
    assert node.leftovers() == ""


def test_what_another_user_has_is_not_given_away(
    node: NodeWithFunctions, stepd: "subprocess.Popen[bytes]"
) -> None:
    node.run("chown", "4242", "/dev/vfio/23")
    done = node.ask("setup", told(12, stepd.pid))
    assert done.returncode == 1 and "/dev/vfio/23 of this node still belongs to another user" in done.stdout
    assert node.said() == [] and node.owners() == [0, 0, 4242, 0] and node.leftovers() == ""


def test_ip_knows_the_words_that_it_is_told(node: NodeWithFunctions) -> None:
    node.run("ip", "tuntap", "add", "dev", "ib0", "mode", "tap")
    for line in (*joining(1, 0), *leaving(2)):
        done = node.run("ip", *line.split(), check=False)
        assert "Operation not supported" in done.stderr, done.stderr  # by the device: the words have passed
