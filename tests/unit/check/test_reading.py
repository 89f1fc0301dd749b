"""What is read on a node where scripts stand for Slurm and nft, and print what those print."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pcocc_runtime import __version__
from pcocc_runtime.check import everywhere, points, read_network, read_node, read_slurm
from pcocc_runtime.check.read_devices import read_given_devices
from pcocc_runtime.documents.node_report import NodeReport, encode_report
from pcocc_runtime.errors import RequestError
from pcocc_runtime.findings import FAILED
from pcocc_runtime.networks.kinds import HostInfiniband, SriovEthernet
from pcocc_runtime.site.site import Site
from pcocc_runtime.slurm.text import parse_configuration
from tests.fake_functions import write_functions

CONFIG = "Configuration data as of 2026-11-29T23:20:00\nKillWait                = 30 sec\nPlugStackConfig         = {plugstack}\n"
SLURMD = (
    "Active Steps             = NONE\nHostname                 = n1\nSlurmd PID               = 4711\nVersion          "
    "        = 22.05.8\n"
)


class Fakes:
    """Programs in a directory that is first in the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, script: str) -> None:
        """Add a shell script under a program's name."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def say(self, name: str, text: str, status: int = 0) -> None:
        """Add a program that prints a text."""
        self.add(name, f"cat <<'END'\n{text}\nEND\nexit {status}")


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return Fakes(tmp_path / "bin")


def test_the_plugin_is_found_through_what_plugstack_includes(fakes: Fakes, tmp_path: Path) -> None:
    fakes.say("scontrol", SLURMD)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/pcocc.so").write_text("nothing")
    (tmp_path / "plugstack.conf").write_text("include plugstack.conf.d/*\n")
    (tmp_path / "plugstack.conf.d").mkdir()
    (tmp_path / "plugstack.conf.d/pcocc.conf").write_text("required pcocc.so\n")
    found = read_slurm.read_plugin({"PlugStackConfig": f"{tmp_path}/plugstack.conf", "PluginDir": f"/nowhere:{tmp_path}/plugins"})
    assert (found.named, found.built, found.slurmd) == (f"{tmp_path}/plugins/pcocc.so", None, (22, 5))
    assert "pcocc.so" in found.trouble and not found.loaded


def test_a_plugstack_that_includes_itself_ends(fakes: Fakes, tmp_path: Path) -> None:
    fakes.say("scontrol", "", 1)
    (tmp_path / "plugstack.conf").write_text("include *.conf\n")
    found = read_slurm.read_plugin({"SLURM_CONF": f"{tmp_path}/slurm.conf"})
    assert (found.named, found.slurmd) == (None, None) and found.config == f"{tmp_path}/plugstack.conf"


def test_the_clock_is_compared_with_slurmctlds(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = CONFIG.format(plugstack="(null)")
    then = read_slurm.time.mktime((2026, 11, 29, 23, 20, 0, 0, 0, -1))
    monkeypatch.setattr(read_slurm.time, "time", lambda: then + 90)
    assert read_slurm.read_clock(shown).ahead == 90
    assert read_slurm.read_clock("").ahead is None


def test_versions(fakes: Fakes) -> None:
    fakes.say("scontrol", SLURMD)
    fakes.say("qemu", "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright")
    assert read_slurm.read_versions(f"{fakes.folder}/qemu").qemu == "10.0.2"
    missing = read_slurm.read_versions("/nowhere/qemu")
    assert (missing.runtime, missing.slurm, missing.qemu) == (
        __version__, "22.05.8", "",
    ) and "/nowhere/qemu" in missing.qemu_trouble


def test_walls(fakes: Fakes) -> None:
    fakes.say("nft", "table inet pcocc\ntable ip filter")
    fakes.say("ip", '[{"priority": 0}]')
    assert (read_network.read_walls().tables, read_network.read_walls().unguarded) == (("inet pcocc", "ip filter"), True)
    fakes.say("ip", json.dumps([{"priority": 24832 + number, "iif": "lo"} for number in range(4)]))
    assert not read_network.read_walls().unguarded
    fakes.add("nft", "echo 'Operation not permitted' >&2; exit 1")
    assert (
        "Operation not permitted" in read_network.read_walls().trouble
        and "Operation not permitted" in read_network.read_filter().trouble
    )
    fakes.say("nft", "no JSON")
    assert read_network.read_filter().trouble


def test_names() -> None:
    found = read_network.read_host_names(("localhost", "no-such-node.invalid"))
    assert found.unknown == ("no-such-node.invalid",)


def test_scratch(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    found = read_node.read_scratch(str(tmp_path))
    assert (
        (found.owner, found.mode, found.writable) == (os.getuid(), 0o750, True)
        and found.filesystem
        and 0 < found.free < found.size
    )
    assert read_node.read_scratch(str(tmp_path / "none")).owner is None


def test_devices(tmp_path: Path) -> None:
    assert read_node.read_device_file("/dev/null").trouble == ""
    assert read_node.read_device_file(str(tmp_path / "none")).mode is None
    (tmp_path / "file").touch()
    assert read_node.read_device_file(str(tmp_path / "file")).trouble == "it is not a device"


def test_configuration(tmp_path: Path) -> None:
    (tmp_path / "pcocc.yaml").write_text("accel: fast\n")
    before = read_node.read_configuration(str(tmp_path))
    (tmp_path / "pcocc.yaml").write_text("accel: kvm\n")
    after = read_node.read_configuration(str(tmp_path))
    assert any("accel: expected one of" in text for text, _hint in before.problems) or "written by others" in str(before.problems)
    assert before.digest != after.digest


def test_what_cannot_be_looked_at_fails_that_point_alone(fakes: Fakes) -> None:
    for name in ("scontrol", "sinfo", "nft"):
        fakes.add(name, f"echo '{name} is broken\non two lines' >&2; exit 1")
    report = points.check_node()
    assert [point.name for point in report.points] == [row.name for row in points.ROWS]
    texts = {point.name: point.findings[0] for point in report.points}
    assert texts["controller"].level == texts["names"].level == texts["walls"].level == FAILED
    assert all("\n" not in one.text for point in report.points for one in point.findings)
    assert report.failures >= 3


@pytest.mark.parametrize(("script", "why"), [
    ("echo 'slurmstepd: error: execve(): /p/pcocc: No such file or directory' >&2; exit 2",
     "pcocc is not installed there (/p/pcocc)"),
    ("echo 'srun: error: Unable to allocate resources: Requested nodes are busy' >&2; exit 1", "Requested nodes are busy"),
    ("exit 3", "srun ended with status 3 without a message"),
    ("echo '{\"node\": 7}'", "its pcocc is of another version"),
])  # fmt: skip
def test_a_node_that_has_no_report_says_why(script: str, why: str, fakes: Fakes) -> None:
    fakes.say("sinfo", "n1 main*")
    fakes.add("srun", script)
    reports, silent = everywhere.run_on_nodes("/p/pcocc", ["node", "check", "--json"])
    assert reports == [] and why in silent["n1"]


def test_every_node_is_asked_in_a_partition_of_its_own(fakes: Fakes) -> None:
    fakes.say("sinfo", "n1 main*\nn2 gpu")
    answer = encode_report(NodeReport("$node", 7, {"part": "$part"}, ()))
    find = "for word; do case $word in --nodelist=*) node=${word#*=};; --partition=*) part=${word#*=};; esac; done"
    fakes.add("srun", f"{find}\ncat <<END\n{answer}END\nexit 1")
    reports, silent = everywhere.run_on_nodes("/p/pcocc", ["node", "check", "--json"])
    assert reports == [NodeReport("n1", 7, {"part": "main"}, ()), NodeReport("n2", 7, {"part": "gpu"}, ())] and silent == {}


@pytest.mark.parametrize(("script", "level", "words"), [
    ("exit 0", "ok", "a VM of template tiny booted and ran a command"),
    ("echo 'srun: noise' >&2; echo 'pcocc: error: no room' >&2; exit 1", "FAILED", "a VM of template tiny did not boot: no room"),
    ("exit 1", "FAILED", "srun said nothing"),
])  # fmt: skip
def test_a_guest_is_booted_on_this_node(script: str, level: str, words: str, fakes: Fakes, tmp_path: Path) -> None:
    fakes.say("sinfo", "n1 main*")
    fakes.add("srun", script)
    (tmp_path / "templates.yaml").write_text("base: {}\ntiny: {image: /images/tiny.qcow2}\n")
    for name in ("", "tiny"):
        [found] = everywhere.boot_guest(str(tmp_path), name).findings
        assert found.level == level and words in found.text


def test_without_a_template_there_is_nothing_to_boot(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no template of the site has an image"):
        everywhere.boot_guest(str(tmp_path), "")


def test_settings_are_empty_where_slurm_says_null() -> None:
    assert parse_configuration(CONFIG.format(plugstack="(null)"))["PlugStackConfig"] == ""


def test_devices_that_the_site_names_are_looked_at(tmp_path: Path) -> None:
    path = write_functions(tmp_path, 3)
    (path / "virtfn1/config").write_bytes(b"\xff" * 64)
    (path / "virtfn2/driver").unlink()
    every = (HostInfiniband("a", "mlx5_0"), SriovEthernet("b", "ens1f0"))
    found = read_given_devices(Site(networks={}, all_networks={one.name: one for one in every}), tmp_path)
    assert (found.named, found.count) == (True, 3)
    assert [text.partition(") ")[2][:22] for text, _hint in found.faults] == ["does not answer any mo", "is bound to no driver "]
    assert len(found.missing) == 1 and "has no Ethernet device with an interface ens1f0" in found.missing[0]
    assert not read_given_devices(Site(), tmp_path).named
