"""Ports of InfiniBand in guests: asked by a made-up ssh, judged, and drawn."""

import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pcocc_runtime import naming
from pcocc_runtime.documents.members import MEMBERS_FILE, Members, encode_members
from pcocc_runtime.documents.node import FunctionFacts
from pcocc_runtime.documents.node_answer import (
    NodeAnswer,
    PortReport,
    decode_node_answers,
    encode_node_answer,
)
from pcocc_runtime.findings import Finding
from pcocc_runtime.guest.ports import ASK_PORTS, GuestPort, parse_ports
from pcocc_runtime.observe import draw
from pcocc_runtime.observe.check import evaluate
from pcocc_runtime.observe.check_fabric import check_ports
from pcocc_runtime.observe.fabric import ask_ports
from tests.unit.observe import netjob

GUIDS = {rank: f"c2cc:2001:0000:0{rank}01" for rank in (0, 1)}
NODE = replace(
    netjob.answer(1).node,
    functions={
        rank: (FunctionFacts("ib", f"0000:81:00.{rank + 2}", 1, 0x2001, GUIDS[rank]), FunctionFacts("gpu", "0000:3b:00.0"))
        for rank in GUIDS
    },
)


def answer(rank: int, state: str = "ACTIVE", *keys: int) -> str:
    shown = " ".join(f"{key:#06x}" for key in keys or (0xA001, 0x7FFF, 0, 0))
    return f"port fe80:0000:0000:0000:{GUIDS[rank]} 4: {state} {shown}\n"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (answer(0), {GUIDS[0]: GuestPort("ACTIVE", (0xA001, 0x7FFF))}),
        ("motd\n" + answer(0, "INIT", 0x7FFF) + answer(1), {
            GUIDS[0]: GuestPort("INIT", (0x7FFF,)), GUIDS[1]: GuestPort("ACTIVE", (0xA001, 0x7FFF)),
        }),
        (f"port fe80:0000:0000:0000:{GUIDS[0]} 1: DOWN", {GUIDS[0]: GuestPort("DOWN", ())}),
        ("port 4: ACTIVE 0x7fff", {}),
        (answer(0).replace("ACTIVE", "\x1b[2J"), {}),
        ("", {}),
    ],
)
def test_a_guest_tells_its_ports(text: str, meant: dict[str, GuestPort]) -> None:
    assert parse_ports(text) == meant


def test_the_question_is_answered_by_a_shell(tmp_path: Path) -> None:
    for device, guid in (("mlx5_0", GUIDS[0]), ("mlx5_1", GUIDS[1])):
        port = tmp_path / f"class/infiniband/{device}/ports/1"
        (port / "gids").mkdir(parents=True)
        (port / "gids/0").write_text(f"fe80:0000:0000:0000:{guid}\n")
        (port / "state").write_text("4: ACTIVE\n")
        (port / "pkeys").mkdir()
        for place, key in enumerate((0xA001, 0x7FFF, 0)):
            (port / f"pkeys/{place}").write_text(f"{key:#06x}\n")
    for path, meant in ((tmp_path, 2), (tmp_path / "none", 0)):
        done = subprocess.run(["sh", "-c", ASK_PORTS.replace("/sys/", f"{path}/")], capture_output=True, text=True, check=True)
        assert done.stderr == "" and list(parse_ports(done.stdout).values()) == [GuestPort("ACTIVE", (0xA001, 0x7FFF))] * meant


@pytest.fixture
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of the job, and an ssh that prints what stands in a file of the VM's address, or fails."""
    directory = tmp_path / "12"
    directory.mkdir()
    networks = (("10.200.0.0/16", ((0, 3),)),)
    (directory / MEMBERS_FILE).write_bytes(encode_members(Members(networks, (), ((4, "alice"),), 4, (("n1", (0, 1)),), 9)))
    monkeypatch.setattr(naming, "job_dir", lambda job: tmp_path / str(job))
    (tmp_path / "ssh").write_text(
        f'#!/bin/sh\nwhile [ "$2" ]; do address=$1; shift; done\n[ "$1" = {shlex.quote(ASK_PORTS)} ] && cat {tmp_path}/$address\n'
    )
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_guests_are_asked_and_nodes_looked_at(guests: Path) -> None:
    (guests / "alice@10.200.0.1").write_text(answer(0))
    (guests / "alice@10.200.0.2").write_text(answer(0))  # another's GUID: it has not its own
    physical = guests / "bus/pci/devices/0000:81:00.2/physfn/infiniband/mlx5_0/ports/1"
    physical.mkdir(parents=True)
    (physical / "state").write_text("4: ACTIVE\n")
    assert ask_ports(NODE, guests) == (
        PortReport(0, "ib", GUIDS[0], 0x2001, "ACTIVE", (0xA001, 0x7FFF), "ACTIVE"),
        PortReport(1, "ib", GUIDS[1], 0x2001),
    )
    (guests / "alice@10.200.0.2").unlink()
    assert ask_ports(NODE, guests)[1].trouble == "its user cannot log in by ssh"
    (guests / "12" / MEMBERS_FILE).unlink()
    assert {one.trouble for one in ask_ports(NODE, guests)} == {"its cluster has not booted"}


def judge(*ports: PortReport) -> list[tuple[str, str]]:
    return [(one.level, one.text) for one in check_ports([replace(netjob.answer(1), node=NODE, ports=ports)])]


GOOD = PortReport(0, "ib", GUIDS[0], 0x2001, "ACTIVE", (0xA001, 0x7FFF), "ACTIVE")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ("ok", "ib: the port of 1 VM is active, with the cluster's key 0x2001")),
        ({"key": None, "keys": (0x7FFF,)}, ("ok", "ib: the port of 1 VM is active")),
        ({"state": "INIT"}, ("FAILED", "ib: vm0 on n1: its port is not active (INIT), but the node's own is: no SM with "
                             "virtualization")),
        ({"state": "DOWN", "uplink": "INIT"},
         ("FAILED", "ib: vm0 on n1: its port is not active (DOWN), and neither is the node's own (INIT)")),
        ({"state": "DOWN", "uplink": None},
         ("FAILED", "ib: vm0 on n1: its port is not active (DOWN), and the node's own is not known")),
        ({"state": None}, ("FAILED", f"ib: vm0 on n1 has no port with the GUID {GUIDS[0]}")),
        ({"keys": (0x7FFF,)}, ("FAILED", f"ib: vm0 on n1: its port has the keys 0x7fff, not 0x2001: GUID {GUIDS[0]} not in "
                               "the SM's file")),
        ({"keys": (0x2001, 0x7FFF)}, ("FAILED", "ib: vm0 on n1: its port has the keys 0x2001 0x7fff, not 0x2001: GUID "
                                      f"{GUIDS[0]} not in the SM's file")),
        ({"keys": ()}, ("FAILED", f"ib: vm0 on n1: its port has the keys none, not 0x2001: GUID {GUIDS[0]} not in the SM's "
                        "file")),
        ({"keys": (0xFFFF, 0xA001)}, ("note", "ib: vm0 on n1: the key 0x2001 is not the first of its port, which most MPI "
                                      "libraries use")),
        ({"trouble": "x"}, ("note", "ib: vm0 on n1 was not asked about its port: x")),
    ],
)  # fmt: skip
def test_a_port_is_judged(changed: dict[str, object], said: tuple[str, str]) -> None:
    assert judge(replace(GOOD, **changed)) == [said]  # type: ignore[arg-type]


def test_networks_are_judged_one_by_one() -> None:
    other = replace(GOOD, source="fast", key=0x3000, keys=(0xB000, 0x7FFF))
    assert judge(GOOD, replace(GOOD, rank=1, guid=GUIDS[1]), other, replace(other, rank=1, state="DOWN")) == [
        ("ok", "ib: the ports of 2 VMs are active, with the cluster's key 0x2001"),
        ("FAILED", "fast: vm1 on n1: its port is not active (DOWN), but the node's own is: no SM with virtualization"),
    ]
    assert Finding("ok", judge(GOOD)[0][1]) in evaluate([replace(netjob.answer(1), node=NODE, ports=(GOOD,))], (), None)


def test_the_state_of_ports_is_drawn_and_crosses_processes() -> None:
    ports = (GOOD, PortReport(1, "ib", GUIDS[1], 0x2001, trouble="x"))
    sent: NodeAnswer = replace(netjob.answer(1), node=NODE, ports=ports)
    assert decode_node_answers(encode_node_answer(0, sent)) == [sent]
    picture = draw.plan_picture([sent], [])
    assert [one["port"] for one in picture["nodes"][0]["functions"]] == [None, None, "ACTIVE", "not known"]
    lines = [" ".join(line.split()) for line in draw.render_picture(picture).splitlines()]
    assert f"| |- vm0 0000:81:00.2 {GUIDS[0]} ACTIVE" in lines and f"| |- vm1 0000:81:00.3 {GUIDS[1]} not known" in lines
    assert draw.plan_picture([replace(sent, ports=())], [])["nodes"][0]["functions"][2]["port"] is None
    with pytest.raises(ValueError, match="VMs or networks that the job does not have"):
        replace(sent, ports=(replace(GOOD, rank=9),))
