"""The whole argument list, as this release's QEMU takes it: what it lacks is left out, and what it has is used.

`make releases` runs this with the QEMU of other releases of Debian.
"""

from __future__ import annotations

import json
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pcocc_runtime.documents.abilities import Abilities
from pcocc_runtime.documents.hardware import GuestNode, Shape, Topology
from pcocc_runtime.qemu.arguments import Export, VmPlan, plan_qemu_argv
from pcocc_runtime.qemu.asking import parse_answers, plan_asking_argv, render_questions
from pcocc_runtime.qemu.disks import Disk, plan_io
from pcocc_runtime.qemu.memory import Backing
from pcocc_runtime.qemu.memory_file import has_mapped_memory
from pcocc_runtime.qemu.qmp import render_command
from tests.unit.qemu.plans import PLAN

QEMU = "qemu-system-x86_64"
WIDE = Topology(
    Shape(8, 2, 1, 1, 2, 2), tuple(range(8)), nodes=(GuestNode(0, (0, 1, 2, 3), 128), GuestNode(0, (4, 5, 6, 7), 64)),
    distances=((10, 21), (21, 10)),
)  # fmt: skip


@pytest.fixture(scope="module")
def abilities() -> Abilities:
    """What the installed QEMU says that it can do."""
    argv = plan_asking_argv(QEMU, "tcg")
    found = parse_answers(subprocess.run(argv, input=render_questions(QEMU), capture_output=True, check=True).stdout.splitlines())
    assert found is not None
    return found


def read_to_quit(sock: socket.socket) -> list[dict[str, Any]]:
    """Return what QEMU says until it answers `quit`; what comes after that may be a reset."""
    with sock.makefile("rb") as lines:
        said: list[dict[str, Any]] = []
        while not said or said[-1].get("id") != "quit":
            said.append(json.loads(lines.readline()))
    return said


def start(directory: Path, abilities: Abilities, **changes: Any) -> tuple[VmPlan, dict[str, Any]]:
    """Start QEMU as planned, but standing still; return the plan, and what it says of each thing that is asked."""
    disks = []
    for number, (kind, persistent) in enumerate((("qcow2", False), ("raw", True))):
        path = directory / f"disk{number}"
        subprocess.run(["qemu-img", "create", "-q", "-f", kind, path, "64M"], check=True)
        disks.append(Disk(str(path), kind, "none" if persistent else "unsafe", False, True, persistent))
    seed = directory / "seed"
    seed.write_bytes(bytes(1 << 16))
    ours, theirs = socket.socketpair()
    ways = tuple(one for one in ("io_uring", "native") if one in abilities.has)
    topology = changes.setdefault("topology", WIDE)
    plan = replace(
        PLAN, qemu=QEMU, nics=(), disks=tuple(disks), seed=str(seed), qmp_fd=theirs.fileno(), memory=192, abilities=abilities,
        io=plan_io(topology.shape.cpus, ways, abilities.has), exports=(Export("d", str(directory), True),),
        qmp_path=str(directory / "qmp"), console_path=str(directory / "console"), console_log=str(directory / "log"),
        agent_path=str(directory / "agent"), display_path=str(directory / "display"), **changes,
    )  # fmt: skip
    asked = {"iothreads": "query-iothreads", "cpus": "query-cpus-fast", "memory": "query-memdev", "quit": "quit"}
    with ours, theirs:
        ours.sendall(render_command("qmp_capabilities") + b"".join(render_command(word, id=name) for name, word in asked.items()))
        argv = plan_qemu_argv(plan)
        done = subprocess.run(
            [*argv, "-S"], pass_fds=[theirs.fileno()], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0 and not done.stderr, f"{done.stderr}\n{json.dumps(argv)}"
        theirs.close()
        said = read_to_quit(ours)
    assert not [one for one in said if "error" in one], said
    return plan, {str(one["id"]): one["return"] for one in said if "id" in one}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"disk_model": "virtio-scsi"},
        {"disk_model": "ide"},
        {"disk_model": "ide", "machine": "pc"},
        {"machine": "pc", "topology": Topology(Shape(2, cores=2))},
        {"backing": Backing(prealloc=True)},
        {"topology": replace(WIDE, nodes=(GuestNode(0, tuple(range(8)), 192),), distances=()), "backing": Backing(prealloc=True)},
        {"topology": Topology(Shape(3, 1, 1, 1, 2, 2), (0, 1, 2), l3=False)},
        {"topology": Topology(Shape(8, 1, 1, 2, 4, 1), tuple(range(8)), l2=True)},
        {"display": "vnc"},
        {"incoming": ("-incoming", "defer")},
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_qemu_takes_it(tmp_path: Path, abilities: Abilities, changes: dict[str, Any]) -> None:
    if changes.get("topology", WIDE).shape.clusters > 1 and "modules" not in abilities.has:
        changes = {**changes, "topology": replace(changes["topology"], shape=Shape(8, 1, 1, 1, 8, 1), l2=False)}
    plan, said = start(tmp_path, abilities, **changes)
    assert len(said["cpus"]) == plan.topology.shape.cpus
    assert sum(one["size"] for one in said["memory"]) in (0, 192 << 20)


def test_queues_of_a_disk_are_divided_among_threads_from_9_on(tmp_path: Path, abilities: Abilities) -> None:
    plan, said = start(tmp_path, abilities)
    names = sorted(one["id"] for one in said["iothreads"])
    divided = "vq-mapping" in abilities.has
    assert divided == (abilities.version >= (9, 0))
    assert names == (["disk0-0", "disk0-1", "disk1-0", "disk1-1"] if divided else ["disk0-0"])
    assert plan.io.queues == 8


def test_what_it_can_do_fits_its_version(abilities: Abilities) -> None:
    """What was added when, by QEMU's change log; io_uring and native depend on what Debian builds in."""
    since = {"vq-mapping": (9, 0), "prealloc-threads": (5, 0), "dedicated": (3, 0), "modules": (9, 1), "smp-cache": (10, 0),
             "monitor-object": (11, 1)}
    assert {name for name in since if name in abilities.has} == {
        name for name, first in since.items() if abilities.version >= first
    }
    assert {"host-nodes", "hugetlb"} <= abilities.has and has_mapped_memory(abilities.version) == (abilities.version >= (9, 0))
