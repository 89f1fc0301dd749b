"""Nodes and login nodes where pcocc is missing, older, or built for another Slurm: the user is told at once, in a sentence."""

from __future__ import annotations

import ctypes
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcocc_runtime import __version__
from tests.boot.box import ROOT, STATE, Box, Done
from tests.waiting import limit, wait_for

PLUGIN = "/opt/pcocc/lib/slurm/pcocc.so"
SERVICE = "/usr/sbin/slurmd"


def told(done: Done) -> list[str]:
    """Return pcocc's errors that a failed command has printed."""
    assert done.returncode != 0 and "Traceback" not in done.stderr, done
    return [line for line in done.stderr.splitlines() if line.startswith("pcocc: error:")]


def test_vms_on_a_node_without_the_package_fail_with_its_name(box: Box) -> None:
    bare = "mount --bind /dev/null /etc/slurm/plugstack.conf && mount -t tmpfs none /opt/pcocc/libexec"
    with box.changed(bare, "umount /etc/slurm/plugstack.conf /opt/pcocc/libexec", node="n2"):
        done = box.run("srun -N2 --pcocc-template=tiny:2 true")
    assert told(done) == ["pcocc: error: pcocc is not installed on n2: there is no /opt/pcocc/libexec/pcocc/launch"]


def test_vms_on_a_node_whose_slurm_does_not_know_the_plugin_fail_with_its_name(box: Box) -> None:
    with box.changed("mount --bind /dev/null /etc/slurm/plugstack.conf", "umount /etc/slurm/plugstack.conf", node="n2"):
        done = box.run("srun -N2 --pcocc-template=tiny:2 true")
    assert told(done) == ["pcocc: error: vm1 on n2: the pcocc plugin did not run for this task"]
    assert "plugstack.conf" in done.stderr


def test_vms_on_a_node_with_an_older_package_fail_with_its_name_and_version(box: Box) -> None:
    place = "/opt/pcocc/lib/pcocc/pcocc_runtime/__init__.py"
    older = f"echo '__version__ = \"0.0.9\"' >/run/older.py && mount --bind /run/older.py {place}"
    with box.changed(older, f"umount {place}", node="n2"):
        done = box.run("srun -N2 --pcocc-template=tiny:2 true")
    assert told(done) == [
        f"pcocc: error: vm1 on n2: this node has pcocc 0.0.9, which is older than the {__version__} that boots"
        " these VMs"
    ]


@pytest.fixture
def foreign() -> Iterator[tuple[Path, str]]:
    """The plugin as it would be for another release of Slurm, and that release."""
    number = ctypes.c_uint.in_dll(ctypes.CDLL(PLUGIN, mode=os.RTLD_LAZY), "plugin_version").value
    symbols = subprocess.run(["nm", "-D", PLUGIN], capture_output=True, text=True, check=True).stdout
    at = int(re.search(r"(?m)^(\w+) R plugin_version$", symbols).group(1), 16)  # type: ignore[union-attr]
    data, path = bytearray(Path(PLUGIN).read_bytes()), STATE / "foreign.so"
    assert struct.unpack_from("<I", data, at)[0] == number, "read-only data is at the same place in the file as in memory"
    struct.pack_into("<I", data, at, 20 << 16 | 11 << 8 | 7)
    path.write_bytes(data)
    yield path, "20.11.7"
    path.unlink()


def ensure_named(text: str, release: str) -> None:
    """Check that a line names the plugin, and the release that it was built for."""
    lines = [line for line in text.splitlines() if PLUGIN in line and release in line]
    assert lines and "ncompatible" in lines[0], text


def test_a_plugin_of_another_slurm_is_named_to_the_user(box: Box, foreign: tuple[Path, str]) -> None:
    path, release = foreign
    with box.changed(f"mount --bind {path} {PLUGIN}", f"umount {PLUGIN}"):
        done = box.run("srun true")
    assert done.returncode != 0
    ensure_named(done.stderr, release)


@pytest.fixture
def idle_node(box: Box) -> Iterator[str]:
    """A node whose slurmd is stopped meanwhile."""
    node = "n2"
    subprocess.run([ROOT / "tests/box", "kill", "--signal", "TERM", "--on", node, "slurmd"], check=True, capture_output=True)
    wait_for(lambda: not box.processes(rf"^{SERVICE} ", node), "the end of slurmd", 30)
    yield node
    done = subprocess.run(
        [ROOT / "tests/box", "restart", "slurmd", node], capture_output=True, text=True, timeout=limit(90), check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def start_slurmd(box: Box, node: str) -> str:
    """Start a slurmd that must refuse its configuration; return what it says."""
    done = box.run(["timeout", "60", SERVICE, "-D", "-N", node], user="root", node=node, timeout=90)
    assert done.returncode not in (0, 124), done
    return done.stderr


def test_a_plugin_of_another_slurm_is_named_by_slurmd(box: Box, idle_node: str, foreign: tuple[Path, str]) -> None:
    path, release = foreign
    with box.changed(f"mount --bind {path} {PLUGIN}", f"umount {PLUGIN}", node=idle_node):
        ensure_named(start_slurmd(box, idle_node), release)


def test_cgroup_v2_beside_v1_is_refused_by_slurmd(box: Box, idle_node: str) -> None:
    conf = "/etc/slurm/cgroup.conf"
    do = f"echo CgroupPlugin=cgroup/v2 >/run/cgroup.conf && mount --bind /run/cgroup.conf {conf}"
    with box.changed(do, f"umount {conf}", node=idle_node):
        said = start_slurmd(box, idle_node)
    assert re.search(r"(error|fatal): .*cgroup", said), said
